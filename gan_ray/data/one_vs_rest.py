"""Labelled classes turned into an anomaly data set: one class against the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gan_ray.config import DataConfig
from gan_ray.data.items import Item, Labels, array_item
from gan_ray.data.splits import position
from gan_ray.errors import ConfigError, DataError
from gan_ray.names import Public

MIXED_NORMALS = 1 / 3
"""Share of the training normals that goes into the unlabeled mix."""


class OneVsRest:
    """A source of classified arrays; its test part is touched by `test` and `labels` alone."""

    grouped_by = "file"
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        data: DataConfig,
        images: Callable[[str], np.ndarray],
        classes: Callable[[str], np.ndarray],
        *,
        validation: bool = False,
    ) -> None:
        """Take functions that give the images [N, H, W] or [N, H, W, 3] and classes [N] of a part.

        Parts are "train" and "test", and "val" where there is a `validation` part.

        Raises:
            ConfigError: not exactly one of normal_class and abnormal_class is set, or a setting of
                another source is.
        """
        one, other = data.normal_class, data.abnormal_class
        if (one is None) == (other is None):
            raise ConfigError(
                f"source '{data.source}' needs exactly one of data.normal_class (now {one}) and "
                f"data.abnormal_class (now {other}). Give --data.normal-class K to call class K "
                "normal and the rest abnormal, or --data.abnormal-class K for the reverse."
            )
        if data.group_pattern or data.manifest:
            raise ConfigError(
                f"data.group_pattern and data.manifest have no effect on source '{data.source}', "
                "which knows no file names. Leave them out."
            )
        self._data, self._images, self._classes = data, images, classes
        self._validation = validation

    def training(self) -> Mapping[str, Sequence[Item]]:
        """Give training normals, and a mix of abnormal and *other* normal training images.

        Only the normals tell their class: that of an image of the mix would say what it is.

        A third of the normals goes into the mix, where `abnormal_share` of the images are
        abnormal; where too few of those exist, the mix is smaller and the share is kept. Fixed by
        hash of the image's number: independent of any seed.
        """
        normals, others = (_shuffled(items) for items in self._apart("train"))
        mixed, planted = _counts(len(normals), len(others), self._data.abnormal_share)
        held_out = self._apart("val") if self._validation else ([], [])
        return {
            "train/normal": _in_order(normals[mixed:]),
            "train/unlabeled": _without_kind(_in_order(normals[:mixed] + others[:planted])),
            "val/normal": held_out[0],
            "val/abnormal": _without_kind(held_out[1]),
        }

    def test(self) -> Sequence[Item]:
        """Give all test images."""
        return self._items("test")

    def test_groups(self) -> frozenset[str]:
        """Give nothing: images without patients share none, and the test part stays closed."""
        return frozenset()

    def labels(self) -> Labels:
        """Say which test images are abnormal; the kind is their class."""
        normal, classes = self._is_normal("test"), self._classes("test")
        kinds = [
            "normal" if is_so else f"class {kind}"
            for is_so, kind in zip(normal, classes, strict=True)
        ]
        return Labels((~normal).astype(np.int64), np.array(kinds, dtype=np.str_))

    def _apart(self, part: str) -> tuple[list[Item], list[Item]]:
        """Give normals and others, each with its class as kind."""
        normal, kinds, items = self._is_normal(part), self._classes(part), self._items(part)
        if len(items) != len(kinds):
            raise DataError(
                f"source '{self._data.source}' has {len(items)} images but {len(kinds)} classes in "
                f"its part '{part}'. Get its files again."
            )
        items = [
            dataclasses.replace(item, kind=str(kind))
            for item, kind in zip(items, kinds, strict=True)
        ]
        return (
            [item for item, is_so in zip(items, normal, strict=True) if is_so],
            [item for item, is_so in zip(items, normal, strict=True) if not is_so],
        )

    def _items(self, part: str) -> list[Item]:
        return [
            array_item(Public(f"{part}/{index:05d}"), pixels)
            for index, pixels in enumerate(self._images(part))
        ]

    def _is_normal(self, part: str) -> np.ndarray:
        classes = self._classes(part)
        wanted, is_normal = self._data.normal_class, True
        if wanted is None:
            wanted, is_normal = self._data.abnormal_class, False
        if wanted not in classes:
            raise ConfigError(
                f"source '{self._data.source}' has no class {wanted}: its classes are "
                f"{', '.join(str(kind) for kind in np.unique(classes))}."
            )
        return np.asarray((classes == wanted) == is_normal)


def refuse_classes(data: DataConfig) -> None:
    """Refuse a normal or abnormal class for a source that itself says what is normal.

    Raises:
        ConfigError: one of them is set.
    """
    if data.normal_class is not None or data.abnormal_class is not None:
        raise ConfigError(
            "data.normal_class and data.abnormal_class have no effect on source "
            f"'{data.source}', which says itself what is normal. Leave them out."
        )


def _counts(normals: int, others: int, share: float) -> tuple[int, int]:
    """Give how many normals and how many others make a mix with that share of others."""
    size = round(normals * MIXED_NORMALS)
    if share >= 1:
        return 0, min(size, others)
    planted = round(size * share / (1 - share))
    if planted > others:
        return round(others * (1 - share) / share), others
    return size, planted


def _shuffled(items: Sequence[Item]) -> list[Item]:
    return sorted(items, key=lambda item: position(item.name, "unlabeled"))


def _without_kind(items: Sequence[Item]) -> list[Item]:
    return [dataclasses.replace(item, kind="") for item in items]


def _in_order(items: Sequence[Item]) -> list[Item]:
    return sorted(items, key=lambda item: item.name)
