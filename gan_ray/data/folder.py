"""Source `folder`: images in folders that say what they are, in a directory, zip or bucket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gan_ray.config import DataConfig
from gan_ray.data.groups import grouping, manifest_column
from gan_ray.data.items import Item, Labels, file_item
from gan_ray.data.layout import ALLOWED, place
from gan_ray.data.tree import Tree, open_tree
from gan_ray.errors import ConfigError, DataError


class Folder:
    """Images by the folders of `layout.place`; listing them opens none."""

    def __init__(self, data: DataConfig) -> None:
        """List the files and learn whose they are.

        Raises:
            ConfigError: settings of other sources are given, or classes that no manifest tells.
            DataError: there is nothing at the root, or a file in a folder without a meaning.
        """
        if data.normal_class is not None or data.abnormal_class is not None:
            raise ConfigError(
                "data.normal_class and data.abnormal_class have no effect on source 'folder', "
                "whose folders say what is normal. Leave them out."
            )
        self._data = data
        self._tree = open_tree(data.root)
        self._places = {name: place(name) for name in self._tree.names}
        misplaced = self._in("misplaced")
        if misplaced:
            raise DataError(
                f"{len(misplaced)} file(s) below '{data.root}' lie where they have no meaning, the "
                f"first is {misplaced[0]!r}. Allowed are {ALLOWED}. Move or remove them."
            )
        self.grouped_by, self._group = grouping(data, self._tree)
        self._kinds = _kinds(data, self._tree)
        self.ignored = tuple(self._in("aside"))

    def training(self) -> Mapping[str, Sequence[Item]]:
        """Give the items of all parts that training may open."""
        parts = ("train/normal", "train/unlabeled", "val/normal", "val/abnormal")
        return {part: self._items(self._in(part)) for part in parts}

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
            if len(set(told.values())) < len(abnormal) / 2:
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
                    f"abnormal image {name!r}. A mask has the stem of its image and lies in "
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


def _kinds(data: DataConfig, tree: Tree) -> Mapping[str, str]:
    """Give the manifest's column `class` by file, where classes are asked for."""
    if data.classes != "source":
        return {}
    kinds = manifest_column(data, tree, "class", needed=False) if data.manifest else {}
    if not kinds:
        where = f"manifest '{data.manifest}' has none" if data.manifest else "no manifest is named"
        raise ConfigError(
            "--data.classes source needs the class of each normal image of a folder from the "
            f"column class of a manifest, but {where}. Add the column (and --data.manifest), or "
            "take --data.classes one or kmeans."
        )
    return kinds
