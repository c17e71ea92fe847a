"""Source `cifar10`: the binary version of CIFAR-10, one class against the rest.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Classes: 0 airplane,
1 automobile, 2 bird, 3 cat, 4 deer, 5 dog, 6 frog, 7 horse, 8 ship, 9 truck.
"""

from __future__ import annotations

import numpy as np

from gan_ray.config import DataConfig
from gan_ray.data.brightness import refusal
from gan_ray.data.one_vs_rest import OneVsRest
from gan_ray.data.tree import Tree, open_tree
from gan_ray.errors import DataError
from gan_ray.names import Public

FILES = {
    "train": tuple(Public(f"data_batch_{number}.bin") for number in range(1, 6)),
    "test": (Public("test_batch.bin"),),
}
RECORD = 1 + 3 * 32 * 32
"""Bytes of an image: its class, then 32 x 32 red, green and blue values."""


def cifar10(data: DataConfig) -> OneVsRest:
    """Give the source at `data.root`; files are opened when they are needed.

    Raises:
        ConfigError: not exactly one of normal_class and abnormal_class is set.
        DataError: there is nothing at the root; later, when a file is missing or damaged.
    """
    tree = open_tree(data.root)
    return OneVsRest(
        data,
        images=lambda part: np.concatenate([_pixels(batch) for batch in _batches(tree, part)]),
        classes=lambda part: np.concatenate([batch[:, 0] for batch in _batches(tree, part)]),
    )


def _batches(tree: Tree, part: str) -> list[np.ndarray]:
    missing = [name for name in FILES[part] if name not in tree.names]
    if missing:
        pickled = missing[0].removesuffix(".bin") in tree.names
        raise DataError(
            f"there is no file '{missing[0]}'"
            + (", but the pickled one, which could run code when it is read. " if pickled else ". ")
            + "Source 'cifar10' reads the six .bin files of the binary version "
            "(cifar-10-binary.tar.gz), unpacked: check --data.root."
        )
    return [_records(tree.read(name), name) for name in FILES[part]]


def _records(content: bytes, name: str) -> np.ndarray:
    if not content or len(content) % RECORD:
        raise refusal(
            name, f"has {len(content):,} bytes, no multiple of {RECORD:,}", "Get the file again."
        )
    return np.frombuffer(content, np.uint8).reshape(-1, RECORD)


def _pixels(batch: np.ndarray) -> np.ndarray:
    return batch[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
