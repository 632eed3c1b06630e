"""Decoding to 32 x 32 grey on one core, with every check, against Pillow's plain way."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

from ml_control.core.images import audit_row
from ml_control.spec import ImageShape

ROUNDS, CROPS = 5, 8


def main() -> None:
    """Print images a second of CPU time, and the ratios."""
    import cv2

    cv2.setNumThreads(1)
    pictures = _photos()
    for kind, options in (("png", []), ("jpg", [cv2.IMWRITE_JPEG_QUALITY, 85])):
        files = [cv2.imencode(f".{kind}", p, options)[1].tobytes() for p in pictures]
        ours = _rate(lambda data: audit_row(data, ImageShape(), "x"), files)
        theirs = _rate(_pillow, files)
        size = sum(map(len, files)) // len(files)
        print(
            f"{kind}: ours {ours:7.0f} /s  Pillow {theirs:7.0f} /s  ratio {ours / theirs:.2f}"
            f"  ({len(files)} photos of {size:,} bytes)"
        )


def _photos() -> list[Any]:
    """Two real photos, shrunk to 320 pixels of width, in overlapping crops."""
    import cv2
    from sklearn.datasets import load_sample_images

    photos = []
    for photo in load_sample_images().images:
        small = cv2.resize(photo[..., ::-1], (384, 256), interpolation=cv2.INTER_AREA)
        photos += [small[i : i + 240, 4 * i : 4 * i + 320] for i in range(CROPS)]
    return photos


def _pillow(data: bytes) -> Any:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("L").resize((32, 32)))


def _rate(decode: Callable[[bytes], Any], files: list[bytes]) -> float:
    """The best round's images a second of this process's CPU time."""
    best = 0.0
    for _ in range(ROUNDS):
        start = time.process_time()
        for data in files:
            decode(data)
        best = max(best, len(files) / (time.process_time() - start))
    return best


if __name__ == "__main__":
    main()
