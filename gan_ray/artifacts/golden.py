"""Golden images: eight synthetic images and the scores a bundle must give them, forever.

They hold no patient's pixel, and they tell whether a machine computes what the exporting one did.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

from gan_ray.detector import ImageSpec
from gan_ray.errors import ArtifactError
from gan_ray.seeds import derive_seed

_LARGEST = 256 * 2**20  # bytes; eight colour images of 3000 pixels a side fit


@dataclass(frozen=True)
class Golden:
    """Images uint8 [N, C, S, S] and their scores float32 [N]."""

    images: np.ndarray
    scores: np.ndarray


def golden_images(image: ImageSpec) -> np.ndarray:
    """Draw the eight images, uint8 [8, C, S, S]: gradients, discs, squares and noise.

    A function of the image spec alone; the channels differ from each other.
    """
    rng = np.random.default_rng(derive_seed("golden", image.size, image.channels))
    axis = np.linspace(0.0, 1.0, image.size)
    y, x = axis[:, None], axis[None, :]
    noise = rng.random((image.channels, image.size, image.size))
    tint = np.linspace(1.0, 0.6, image.channels)[:, None, None]
    disc = np.hypot(x - 0.5, y - 0.5) < 0.3
    square = (abs(x - 0.4) < 0.2) & (abs(y - 0.6) < 0.2)
    grey = (
        x + 0 * y,
        y + 0 * x,
        1.0 - np.hypot(x - 0.5, y - 0.5),
        0.1 + 0.8 * disc,
        0.9 - 0.6 * square,
        0.5 * x + 0.5 * (np.hypot(x - 0.7, y - 0.3) < 0.15),
        noise,
        0.5 * disc + 0.25 * square + 0.25 * noise,
    )
    levels = np.stack([tint * picture for picture in grey])
    return (255.0 * levels.clip(0.0, 1.0)).round().astype(np.uint8)


def golden_classes(images: np.ndarray, image: ImageSpec) -> np.ndarray:
    """Give golden images classes in turn, int64 [N], for detectors that need one."""
    classes: np.ndarray = np.arange(len(images), dtype=np.int64) % image.classes
    return classes


def write_golden(golden: Golden) -> bytes:
    """Give the npz file; the same content gives the same bytes."""
    file = io.BytesIO()
    np.savez_compressed(file, images=golden.images, scores=golden.scores)
    return file.getvalue()


def read_golden(data: bytes, image: ImageSpec, where: str) -> Golden:
    """Read the npz file of a bundle for `image`; `where` names it in errors. Runs no code.

    Raises:
        ArtifactError: no npz, pickled objects, other arrays, shapes or types than the bundle's.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            if sum(member.file_size for member in arrays.zip.infolist()) > _LARGEST:
                raise ValueError(f"unpacks to more than {_LARGEST} bytes")
            images, scores = arrays["images"], arrays["scores"]
    except (
        *(ValueError, TypeError, KeyError, AttributeError, OSError, EOFError, RuntimeError),
        *(NotImplementedError, MemoryError, zipfile.BadZipFile, zlib.error),
    ) as error:
        raise ArtifactError(
            f"{where}: not readable as plain arrays `images` and `scores` ({error}); export or "
            "fetch the bundle again"
        ) from None
    spec = (image.channels, image.size, image.size)
    types = (images.dtype, scores.dtype) == (np.uint8, np.float32)
    shapes = scores.ndim == 1 and scores.size > 0 and images.shape == (scores.size, *spec)
    if not (types and shapes and np.isfinite(scores).all()):
        raise ArtifactError(
            f"{where}: holds images {images.dtype}{list(images.shape)} and scores {scores.dtype}"
            f"{list(scores.shape)}; needed are uint8 [N, {', '.join(map(str, spec))}] and N finite "
            "float32; export the bundle again"
        )
    return Golden(images, scores)
