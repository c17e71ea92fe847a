"""Small data sets on disk, in the layouts that users have."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = {"train/normal": 24, "train/unlabeled": 9, "test/normal": 5, "test/abnormal": 4}


def png(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """Encode pixels as an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def noise(number: int, size: int = 12, dtype: type = np.uint8) -> np.ndarray:
    """Pixels that no other number has."""
    random = np.random.default_rng(number)
    return random.integers(0, np.iinfo(dtype).max, (size, size), dtype=dtype, endpoint=True)


def scene(number: int, size: int = 96) -> np.ndarray:
    """Pixels that no other number has, smooth enough to be known again at another size."""
    random = np.random.default_rng(number)
    layers = [random.normal(0, 30 / share, (side, side)) for side, share in ((6, 1), (24, 2))]
    images = [Image.fromarray(layer.astype(np.float32)) for layer in layers]
    drawn = sum(
        np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)) for image in images
    )
    return np.clip(np.rint(128 + drawn), 0, 255).astype(np.uint8)


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    """The same picture at another size."""
    image = Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image)


def folders(counts: Mapping[str, int] = COUNTS, *, masks: bool = False) -> dict[str, bytes]:
    """Files of a data set in our own layout, by path; every image differs."""
    names = [
        f"{part}/p{n % 6}-{part[:2]}{n:03d}.png" for part in counts for n in range(counts[part])
    ]
    files = {name: png(noise(number)) for number, name in enumerate(names)}
    if masks:
        for name in names:
            if "/abnormal/" in name:
                files[name.replace("abnormal", "masks")] = png(np.eye(12, dtype=np.uint8) * 255)
    return files


def write_folder(root: Path, files: Mapping[str, bytes]) -> str:
    """Write the files below `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(root)


def write_zip(path: Path, files: Mapping[str, bytes], *, top: str = "") -> str:
    """Write the files into a zip, below a folder `top` if given."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{top}/{name}" if top else name, content)
    return str(path)
