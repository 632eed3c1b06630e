"""Real sample data that needs no download: scikit-learn's digits and breast cancer tables.

Files are laid out as they would be dropped: under ``dt=<day>/``.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from ml_control.core.images import encode_png
from ml_control.errors import InvalidSpec


def write_digits(
    folder: Path,
    days: Sequence[str],
    per_day: int,
    *,
    seed: int = 0,
    held_back: int = 0,
    skip: int = 0,
) -> list[tuple[str, bytes]]:
    """Handwritten digits, 8 x 8 grey PNG, as ``folder/dt=<day>/<label>/<name>.png``.

    Each day gets *per_day* images that no other day has; the first *skip* of the seed's order are
    left to others. Returns *held_back* further images as (label, PNG bytes). Raises
    ``InvalidSpec`` when there are not enough different images.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    _, different = np.unique(pixels.reshape(len(pixels), -1), axis=0, return_index=True)
    needed = per_day * len(days) + held_back
    if skip + needed > len(different):
        raise InvalidSpec(
            "digits",
            f"{needed} images asked for, there are {len(different)}",
            "ask for fewer days or images",
        )
    chosen = np.random.default_rng(seed).permutation(np.sort(different))[skip : skip + needed]
    for place, index in enumerate(chosen[: per_day * len(days)]):
        path = folder / f"dt={days[place // per_day]}" / str(digits.target[index])
        path.mkdir(parents=True, exist_ok=True)
        (path / f"digit-{index:04d}.png").write_bytes(encode_png(pixels[index]))
    return [
        (str(digits.target[index]), encode_png(pixels[index]))
        for index in chosen[per_day * len(days) :]
    ]


def write_tumours(folder: Path, days: Sequence[str], *, seed: int = 0) -> list[Path]:
    """Breast cancer cases as ``folder/dt=<day>/tumours.csv``, each case on one day.

    30 measurements in snake_case and ``diagnosis`` (malignant or benign). Days get equal shares
    of the 569 cases, up to one. Returns the files' paths, in the order of *days*.
    """
    import numpy as np
    from sklearn.datasets import load_breast_cancer

    cases = load_breast_cancer()
    header = [*(str(name).replace(" ", "_") for name in cases.feature_names), "diagnosis"]
    order = np.random.default_rng(seed).permutation(len(cases.data))
    paths = []
    for day, rows in zip(days, np.array_split(order, len(days)), strict=True):
        path = folder / f"dt={day}" / "tumours.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            for row in rows:
                diagnosis = str(cases.target_names[cases.target[row]])
                writer.writerow([*(f"{value:g}" for value in cases.data[row]), diagnosis])
        paths.append(path)
    return paths
