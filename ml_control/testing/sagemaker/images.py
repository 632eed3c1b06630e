"""Which container an image URI means."""

from __future__ import annotations

import re

from ml_control.core.containers import CONTAINERS, Container
from ml_control.testing.sagemaker.refused import invalid

_IMAGE = re.compile(
    r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/(sagemaker-xgboost|xgboost):(.+)"
)


def container_of(image: str, region: str) -> Container:
    """The container of an XGBoost image in this region.

    Raises ``Refused`` (ValidationException) for another registry, region or algorithm, for
    ``latest`` and for tags whose XGBoost this double does not have.
    """
    found = _IMAGE.fullmatch(image)
    if found is None:
        raise invalid(f"Using non-ECR image or an image that is not XGBoost's: '{image}'.")
    _, where, repository, tag = found.groups()
    if where != region:
        raise invalid(f"The image '{image}' is in {where}, but must be in the region {region}.")
    known = tag.removesuffix("-cpu-py3")
    if repository != "sagemaker-xgboost" or known not in CONTAINERS:
        raise invalid(
            f"The image '{image}' does not exist here: the tags are {', '.join(CONTAINERS)} of "
            "sagemaker-xgboost (latest and 1 are XGBoost 0.72 and nothing that can be proven)."
        )
    return CONTAINERS[known]
