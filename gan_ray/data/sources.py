"""The two doors to a data set: one for training, one for the test split.

`load_training` opens no test file. `load_test` is called by evaluation alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gan_ray.config import DataConfig
from gan_ray.data.cifar10 import cifar10
from gan_ray.data.data_json import DataJson
from gan_ray.data.digits import digits
from gan_ray.data.folder import Folder
from gan_ray.data.idx import idx
from gan_ray.data.items import Item, Labels, decode, digest
from gan_ray.data.kinds import UNKNOWN, classes_of, number_kinds, refuse_unknown
from gan_ray.data.manifest import Manifest
from gan_ray.data.masks import load_masks
from gan_ray.data.npz import npz
from gan_ray.data.pseudo_classes import fit_classes
from gan_ray.data.sets import Split, TestData, TrainingData
from gan_ray.data.splits import hold_out, set_aside, shared
from gan_ray.data.svhn import svhn
from gan_ray.data.transforms import preprocessing_hash, widen
from gan_ray.detector import ImageSpec
from gan_ray.errors import ConfigError, DataError, unknown
from gan_ray.names import shown

__all__ = ["Source", "Split", "TestData", "TrainingData", "load_test", "load_training"]

Parts = Mapping[str, Sequence[Item]]
"""Items by part of a data set."""


class Source(Protocol):
    """What a data set can tell; no image is opened before its item is loaded."""

    @property
    def grouped_by(self) -> str:
        """What tells whose image it is: `file` (nothing does), `pattern` or `manifest`."""

    @property
    def ignored(self) -> Sequence[str]:
        """Files that lie beside the images and are not used."""

    @property
    def notes(self) -> Sequence[str]:
        """Sentences on what was given otherwise than asked, and what to do about it."""

    def training(self) -> Parts:
        """Items by part: train/normal, train/unlabeled, val/normal, val/abnormal."""

    def test(self) -> Sequence[Item]:
        """Items of the test split."""

    def test_groups(self) -> frozenset[str]:
        """Groups of the test split, as far as they are known without opening a test file."""

    def labels(self) -> Labels:
        """Labels of the test split, in the order of `test`."""


_SOURCES: Mapping[str, Callable[[DataConfig], Source]] = {
    "cifar10": cifar10,
    "csv": Manifest,
    "data-json": DataJson,
    "digits": digits,
    "folder": Folder,
    "idx": idx,
    "npz": npz,
    "svhn": svhn,
}


@dataclass(frozen=True)
class TrainingItems:
    """The items that training may open, by what they are for."""

    normal: Sequence[Item]
    unlabeled: Sequence[Item]
    select: Sequence[Item]
    calibrate: Sequence[Item]
    abnormal: Sequence[Item]
    """Abnormal images of a validation folder."""
    held_out_mix: Sequence[Item] = ()
    """Unlabeled images that are not trained on."""
    notes: Sequence[str] = ()
    """What the source gave otherwise than asked."""


def open_source(data: DataConfig) -> Source:
    """Give the source that the settings name, listed but not opened.

    Raises:
        ConfigError: settings that cannot work.
        DataError: there is nothing usable at the root.
    """
    if data.source not in _SOURCES:
        raise ConfigError(unknown("source", data.source, _SOURCES))
    if data.image_size < 1:
        raise ConfigError(f"data.image_size is {data.image_size}, but must be at least 1 pixel.")
    if not 0 < data.holdout < 1:
        raise ConfigError(
            f"data.holdout is {data.holdout}, but must lie between 0 and 1: some normals must be "
            "held out for selection and calibration, and some must be left to train on."
        )
    if not 0 <= data.abnormal_share <= 1:
        raise ConfigError(f"data.abnormal_share is {data.abnormal_share}, but must lie in [0, 1].")
    if data.classes == "one" and data.class_count != 1:
        raise ConfigError(
            f"data.class_count is {data.class_count}, but data.classes is one: say where classes "
            "come from with --data.classes source or kmeans, or set --data.class-count 1."
        )
    return _SOURCES[data.source](data)


def training_items(parts: Parts, data: DataConfig) -> TrainingItems:
    """Say what each item of `Source.training` is for; images are held out by group.

    A folder of validation normals is used instead of held-out training normals.

    Raises:
        ConfigError: unlabeled images are to be held out, and there are none.
        DataError: there are no training normals, or too few groups of them or of the mix.
    """
    normal = parts["train/normal"]
    if not normal:
        raise DataError(
            f"there are no normal training images in '{data.root or data.source}'. "
            "Put them into train/normal (or train/good)."
        )
    if parts["val/normal"]:
        _, select, calibrate = hold_out(parts["val/normal"], _group, 1.0)
    else:
        normal, select, calibrate = hold_out(normal, _group, data.holdout)
    mix, held_out_mix = parts["train/unlabeled"], list[Item]()
    if data.mix_held_out and not mix:
        raise ConfigError(
            f"data.mix_held_out is {data.mix_held_out:g}, but the data have no unlabeled mix "
            "(train/unlabeled) to hold images out of: add one, or leave --data.mix-held-out out."
        )
    if data.mix_held_out:
        mix, held_out_mix = set_aside(mix, _group, data.mix_held_out)
    return TrainingItems(normal, mix, select, calibrate, parts["val/abnormal"], held_out_mix)


def list_training(data: DataConfig) -> TrainingItems:
    """Say what each training image is for; opens none of them.

    Raises:
        ConfigError: settings that cannot work.
        DataError: no or too few images, patients that are also in the test split, or a held-out
            normal of a class that is not trained.
    """
    source = open_source(data)
    found = source.training()
    items = training_items(found, data)
    _refuse_shared_patients(found, source.test_groups())
    if data.classes == "source":
        refuse_unknown([*items.select, *items.calibrate], number_kinds(items.normal, data))
    return dataclasses.replace(items, notes=source.notes)


def load_training(data: DataConfig) -> TrainingData:
    """Give the prepared training data; never opens a test file.

    Raises:
        ConfigError: settings that cannot work.
        DataError: images that cannot be used, or patients that are also in the test split.
    """
    items = list_training(data)
    image = ImageSpec(size=data.image_size, channels=data.channels)
    by_part = {
        "normal": items.normal,
        "unlabeled": items.unlabeled,
        "select": items.select,
        "calibrate": items.calibrate,
        "labelled": [*items.select, *items.abnormal] if items.abnormal else [],
    }
    if items.held_out_mix:  # no part of the fingerprint of data without it
        by_part["held_out_mix"] = items.held_out_mix
    parts = {name: decode(some, image, data.fit) for name, some in by_part.items()}
    if any(split.images.dtype == np.uint16 for split in parts.values()):
        parts = {
            name: dataclasses.replace(split, images=widen(split.images))
            for name, split in parts.items()
        }
    if data.classes != "one":
        classes = _training_classes(by_part, parts, data)
        parts = {
            name: dataclasses.replace(split, classes=classes[name]) for name, split in parts.items()
        }
    labels = np.array([0] * len(items.select) + [1] * len(items.abnormal), dtype=np.int64)
    return TrainingData(
        normal=parts["normal"],
        unlabeled=parts["unlabeled"] if items.unlabeled else None,
        select=parts["select"],
        calibrate=parts["calibrate"],
        labelled=(parts["labelled"], labels) if items.abnormal else None,
        fingerprint=_fingerprint(parts, preprocessing_hash(image, data.fit), data.classes),
        held_out_mix=parts.get("held_out_mix"),
    )


def load_test(data: DataConfig) -> TestData:
    """Give the prepared test split with its labels: the one door to them.

    Classes are those that a manifest tells, numbered as in training; other sources tell none.

    Raises:
        ConfigError: settings that cannot work.
        DataError: images or masks that cannot be used, no test images, or patients that are also
            in the training data.
    """
    source = open_source(data)
    if groups := source.test_groups():
        _refuse_shared_patients(source.training(), groups)
    items = source.test()
    if not items:
        raise DataError(
            f"there are no test images in '{data.root}'. Put them into test/normal and "
            "test/abnormal."
        )
    known = source.labels()
    if len(known.labels) != len(items):
        raise DataError(
            f"'{data.root}' has {len(items)} test images but labels for {len(known.labels)}. "
            "Get its files again."
        )
    image = ImageSpec(size=data.image_size, channels=data.channels)
    split = decode(items, image, data.fit)
    if data.classes != "one":
        split = dataclasses.replace(split, classes=_test_classes(items, source, data))
    return TestData(
        split=split,
        labels=known.labels,
        sublabels=known.sublabels,
        masks=None if known.masks is None else load_masks(known.masks, image.size, data.fit),
    )


def shared_patients(first: Iterable[Item], second: Iterable[str]) -> str:
    """Name the groups of the items that also occur in `second`, at most ten; empty if none do."""
    names = shared((item.group for item in first), second)
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(shown(name, digest(name.encode())) for name in names[:10]) + more


def _refuse_shared_patients(parts: Parts, test_groups: Iterable[str]) -> None:
    names = shared_patients((item for items in parts.values() for item in items), test_groups)
    if names:
        raise DataError(
            f"patients (groups) are both in the training and in the test data: {names}. Every "
            "figure measured there would be too good: move all images of a patient to one side."
        )


def _group(item: Item) -> str:
    return item.group


def _training_classes(
    items: Parts, parts: Mapping[str, Split], data: DataConfig
) -> dict[str, np.ndarray]:
    if data.classes == "source":
        numbers = number_kinds(items["normal"], data)
        return {name: classes_of(some, numbers) for name, some in items.items()}
    nearest = fit_classes(parts["normal"].images, data.class_count)
    return {name: nearest(split.images) for name, split in parts.items()}


def _test_classes(items: Sequence[Item], source: Source, data: DataConfig) -> np.ndarray:
    if data.classes == "kmeans" or not any(item.kind for item in items):
        return np.full(len(items), UNKNOWN, np.int64)
    return classes_of(items, number_kinds(training_items(source.training(), data).normal, data))


def _fingerprint(parts: Mapping[str, Split], preprocessing: str, classes: str) -> str:
    digest = hashlib.blake2b(preprocessing.encode(), digest_size=8)
    for name, split in parts.items():
        digest.update(f"{name} {split.images.dtype} {split.images.shape}".encode())
        digest.update(split.groups.tobytes())
        if classes != "one":
            digest.update(split.classes.tobytes())
        for start in range(0, len(split), 256):
            digest.update(np.ascontiguousarray(split.images[start : start + 256]).data)
    return digest.hexdigest()
