"""Source `idx`: the four files of MNIST and of the sets that copy its format."""

from __future__ import annotations

import gzip
import io
import struct
import zlib

import numpy as np

from gan_ray.config import DataConfig
from gan_ray.data.brightness import refusal
from gan_ray.data.one_vs_rest import OneVsRest
from gan_ray.data.tree import Tree, open_tree
from gan_ray.errors import DataError
from gan_ray.names import Public, listed

MAX_BYTES = 2**30
"""Largest array that is unpacked."""

_PREFIX = {"train": "train", "test": "t10k"}
_GET_AGAIN = "Get the four files of the data set again."


def idx(data: DataConfig) -> OneVsRest:
    """Give the source at `data.root`; files are opened when they are needed.

    Raises:
        ConfigError: not exactly one of normal_class and abnormal_class is set.
        DataError: there is nothing at the root; later, when a file is missing or damaged.
    """
    tree = open_tree(data.root)
    return OneVsRest(
        data,
        images=lambda part: _array(tree, f"{_PREFIX[part]}-images-idx3-ubyte", 3),
        classes=lambda part: _array(tree, f"{_PREFIX[part]}-labels-idx1-ubyte", 1),
    )


def _array(tree: Tree, stem: str, dimensions: int) -> np.ndarray:
    name = next((name for name in (Public(f"{stem}.gz"), Public(stem)) if name in tree.names), "")
    if not name:
        raise DataError(
            f"there is no file '{stem}.gz' among {listed(tree.names)}. Source 'idx' reads "
            "the images and labels of train and t10k: check --data.root."
        )
    return read_idx(tree.read(name), name, dimensions)


def read_idx(data: bytes, name: str, dimensions: int) -> np.ndarray:
    """Give the uint8 array of an idx file (gzip or plain) with that many dimensions.

    Format: two zero bytes, 8 for uint8, the number of dimensions, each as a big-endian 32-bit
    count, then the values.

    Raises:
        DataError: it is damaged, of other type or dimensions, or above `MAX_BYTES`.
    """
    content = data
    if data.startswith(b"\x1f\x8b"):
        try:
            content = gzip.GzipFile(fileobj=io.BytesIO(data)).read(MAX_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise refusal(name, f"cannot be unpacked ({error})", _GET_AGAIN) from None
    if len(content) > MAX_BYTES:
        raise refusal(
            name, f"unpacks to more than {MAX_BYTES:,} bytes", "Cut it into smaller sets."
        )
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, 8, dimensions)):
        raise refusal(name, f"is no idx file of bytes with {dimensions} dimension(s)", _GET_AGAIN)
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    values = np.frombuffer(content, np.uint8, offset=start)
    if values.size != int(np.prod(shape, dtype=object)):
        raise refusal(
            name,
            f"announces {' x '.join(map(str, shape))} values but holds {values.size}",
            _GET_AGAIN,
        )
    return values.reshape(shape)
