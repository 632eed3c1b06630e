"""Made-up insurance claims: a small table for each task, and a pipeline over it."""

from __future__ import annotations

import csv

import numpy as np
import yaml

DAY = "2024-03-04"
GATES = {"binary": "auc", "multiclass": "accuracy", "regression": "r2"}
SETTINGS = {"num_round": 30, "max_depth": 3, "eta": 0.3}


def write_claims(path, task, rows=1200, seed=5):
    """A CSV file whose target follows from age, amount and region, with gaps and some noise.

    Of the two classes one in ten is ``fraud``; of the three, one in eight is ``high``.
    """
    random = np.random.default_rng(seed)
    age, amount = random.uniform(18, 90, rows), random.gamma(2.0, 50.0, rows)
    region = random.choice(["north", "south", "west"], rows)
    risk = (age - 54) / 20 + (amount - 100) / 70 + (region == "south") * 1.2
    risk += random.normal(scale=0.3, size=rows)
    if task == "binary":
        target = np.where(risk > np.quantile(risk, 0.9), "fraud", "fair")
    elif task == "multiclass":
        edges = np.quantile(risk, [0.4, 0.875])
        target = np.array(["low", "middle", "high"])[np.digitize(risk, edges)]
    else:
        target = np.array([f"{value:.4f}" for value in risk * 10])
    gaps = random.random(rows) < 0.05
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["age", "amount", "region", "target"])
        for index in range(rows):
            shown = "" if gaps[index] else f"{age[index]:.3f}"
            writer.writerow([shown, f"{amount[index]:.3f}", region[index], target[index]])


def write_pipeline(folder, name, task, **training):
    """The pipeline file of these claims, with one gate that a model without skill fails."""
    columns = {
        "target": "target",
        "task": task,
        "features": [
            {"name": "age", "type": "number"},
            {"name": "amount", "type": "number"},
            {"name": "region", "type": "category"},
        ],
    }
    if task == "binary":
        columns["positive"] = "fraud"
    document = {
        "type": "ml_control.components.ModelPipeline",
        "attributes": {
            "source": {"format": "csv", "partition": {"by": "day", "start": "2024-01-01"}},
            "columns": columns,
            "training": {
                "split": {"validation": 0.2, "test": 0.2},
                "hyperparameters": SETTINGS,
                "early_stopping_rounds": 10,
                **training,
            },
            "gates": {"metrics": {GATES[task]: {"min": 0.75}}},
        },
    }
    (folder / name).mkdir(parents=True)
    (folder / name / "defs.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
