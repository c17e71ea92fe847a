"""Source `folder`: images in folders that say what they are, in a directory, zip or bucket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gan_ray.config import DataConfig
from gan_ray.data.groups import grouping, manifest_column
from gan_ray.data.items import Item, Labels, are_kinds, file_item
from gan_ray.data.kinds import manifest_kinds
from gan_ray.data.layout import ALLOWED, place
from gan_ray.data.one_vs_rest import refuse_classes
from gan_ray.data.tree import open_tree
from gan_ray.errors import DataError
from gan_ray.names import shown


class Folder:
    """Images by the folders of `layout.place`; listing them opens none."""

    notes: tuple[str, ...] = ()

    def __init__(self, data: DataConfig) -> None:
        """List the files and learn whose they are.

        Raises:
            ConfigError: settings of other sources are given, or classes that no manifest tells.
            DataError: there is nothing at the root, or a file in a folder without a meaning.
        """
        refuse_classes(data)
        self._data = data
        self._tree = open_tree(data.root)
        self._places = {name: place(name) for name in self._tree.names}
        self._normal = self._in("train/normal")
        straight = self._in("train")
        if self._normal or self._in("train/unlabeled"):
            misplaced = [*self._in("misplaced"), *straight]
        else:
            misplaced, self._normal = self._in("misplaced"), straight
        if misplaced:
            raise DataError(
                f"{len(misplaced)} file(s) below '{data.root}' lie where they have no meaning, the "
                f"first is {shown(misplaced[0])}. Allowed are {ALLOWED}. Move or remove them."
            )
        self.grouped_by, self._group = grouping(data, self._tree)
        self._kinds = manifest_kinds(data, self._tree)
        self.ignored = tuple(self._in("aside"))

    def training(self) -> Mapping[str, Sequence[Item]]:
        """Give the items of all parts that training may open."""
        parts = ("train/unlabeled", "val/normal", "val/abnormal")
        return {
            "train/normal": self._items(self._normal),
            **{part: self._items(self._in(part)) for part in parts},
        }

    def test(self) -> Sequence[Item]:
        """Give the items of the test split."""
        return self._items(self._in("test"))

    def test_groups(self) -> frozenset[str]:
        """Give the groups of the test images, which their names or the manifest tell."""
        return frozenset(self._group(name) for name in self._in("test"))

    def labels(self) -> Labels:
        """Say which test images are abnormal, of which kind and where.

        The kind is the folder's name in MVTec's layout, or the manifest's column `sublabel` where
        that holds kinds (fewer than half as many as abnormal images) rather than remarks.

        Raises:
            DataError: there are masks, but not for every abnormal image.
        """
        names = self._in("test")
        kinds = [self._places[name].sublabel for name in names]
        abnormal = [name for name, kind in zip(names, kinds, strict=True) if kind != "normal"]
        if self._data.manifest:
            column = manifest_column(self._data, self._tree, "sublabel", needed=False)
            told = {name: column[name] for name in abnormal if name in column}
            if are_kinds(told.values(), len(abnormal)):
                kinds = [told.get(name, kind) for name, kind in zip(names, kinds, strict=True)]
        return Labels(
            labels=np.array([kind != "normal" for kind in kinds], dtype=np.int64),
            sublabels=np.array(kinds, dtype=np.str_),
            masks=self._masks(names, abnormal),
        )

    def _masks(self, names: Sequence[str], abnormal: Sequence[str]) -> Sequence[Item | None] | None:
        by_key = {self._places[mask].key: mask for mask in self._in("masks")}
        if not by_key:
            return None
        found = {}
        for name in abnormal:
            key = self._places[name].key
            mask = by_key.get(key) or by_key.get(key.partition("/")[2])
            if mask is None:
                raise DataError(
                    f"there are {len(by_key)} masks below '{self._data.root}', but none for the "
                    f"abnormal image {shown(name)}. A mask has the stem of its image and lies in "
                    "test/masks, or is ground_truth/<defect>/<stem>_mask.png. Add it, or remove "
                    "all masks."
                )
            found[name] = file_item(mask, mask, self._tree.read)
        return [found.get(name) for name in names]

    def _in(self, part: str) -> list[str]:
        return [name for name, where in self._places.items() if where.part == part]

    def _items(self, names: Sequence[str]) -> list[Item]:
        return [
            file_item(name, self._group(name), self._tree.read, self._kinds.get(name, ""))
            for name in names
        ]
