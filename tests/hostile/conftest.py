"""A real endpoint server for suites that send it what it should refuse."""

from __future__ import annotations

import numpy as np
import pytest
import xgboost
from serving import Served, deployment


@pytest.fixture(scope="session")
def booster():
    """A small binary classifier over three features."""
    rows = np.random.default_rng(3).normal(size=(400, 3)).astype(np.float32)
    labels = (rows[:, 0] + rows[:, 1] > 0).astype(int)
    return xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(rows, labels), 20)


@pytest.fixture(scope="session")
def served(tmp_path_factory, booster):
    """One server for all: what one request breaks, the next one finds."""
    served = Served(deployment(tmp_path_factory.mktemp("served"), booster), booster)
    yield served
    served.process.kill()
    served.process.wait()
    served.log.close()
