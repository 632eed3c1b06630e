"""Decoding to 32 x 32 grey on one core, with every check, against Pillow's plain way."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

from ml_control.core.images import audit_row
from ml_control.spec import ImageShape

ROUNDS, CROPS = 7, 8
SIZES = ((96, 96), (128, 128), (256, 256), (320, 240))


def main() -> None:
    """Print images a second of CPU time, and the ratios."""
    import cv2

    cv2.setNumThreads(1)
    for width, height in SIZES:
        pictures = _photos(width, height)
        for kind, options in (("png", []), ("jpg", [cv2.IMWRITE_JPEG_QUALITY, 85])):
            files = [cv2.imencode(f".{kind}", p, options)[1].tobytes() for p in pictures]
            ours, theirs = _rates(files)
            size = sum(map(len, files)) // len(files)
            print(
                f"{kind} {width} x {height}: ours {ours:7.0f} /s  Pillow {theirs:7.0f} /s  "
                f"ratio {ours / theirs:.2f}  ({len(files)} photos of {size:,} bytes)"
            )


def _photos(width: int, height: int) -> list[Any]:
    """Two real photos, shrunk, in overlapping crops of a size."""
    import cv2
    from sklearn.datasets import load_sample_images

    photos = []
    for photo in load_sample_images().images:
        scaled = (round(width * 1.2), round(height * 1.07))
        small = cv2.resize(photo[..., ::-1], scaled, interpolation=cv2.INTER_AREA)
        room = scaled[0] - width
        starts = [(place * room // CROPS, place % 3) for place in range(CROPS)]
        photos += [small[y : y + height, x : x + width] for x, y in starts]
    return photos


def _pillow(data: bytes) -> Any:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("L").resize((32, 32)))


def _rates(files: list[bytes]) -> tuple[float, float]:
    """Each way's best round in images a second of this process's CPU time, by turns."""
    ways: tuple[Callable[[bytes], Any], ...] = (
        lambda data: audit_row(data, ImageShape(), "x"),
        _pillow,
    )
    best = [0.0, 0.0]
    for _ in range(ROUNDS):
        for place, decode in enumerate(ways):
            start = time.process_time()
            for data in files:
                decode(data)
            best[place] = max(best[place], len(files) / (time.process_time() - start))
    return best[0], best[1]


if __name__ == "__main__":
    main()
