"""Kinds of normal images as their source tells them (`data.classes source`): names to numbers.

Numbers are those of the kinds among the training normals. An image of another kind, or of none that
is told, has no class: it is never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gan_ray.config import DataConfig
from gan_ray.data.groups import manifest_column
from gan_ray.data.items import Item
from gan_ray.data.tree import Tree
from gan_ray.errors import ConfigError, DataError
from gan_ray.names import shown

UNKNOWN = -1
"""Class of an image whose kind is not told, or is none of the training normals'."""
_NAMED = 10


def number_kinds(normal: Sequence[Item], data: DataConfig) -> Mapping[str, int]:
    """Number the kinds of the training normals from 0 on, in their sorted order.

    Raises:
        ConfigError: they are not `data.class_count` kinds.
        DataError: a normal has no kind.
    """
    untold = [item.name for item in normal if not item.kind]
    if untold:
        raise DataError(
            f"{len(untold)} of {len(normal)} training normals have no class, the first is "
            f"{shown(untold[0])}. Fill the column class of the manifest for every normal image."
        )
    kinds = sorted({item.kind for item in normal})
    if len(kinds) != data.class_count:
        named = ", ".join(kinds[:_NAMED]) + (", ..." if len(kinds) > _NAMED else "")
        raise ConfigError(
            f"data.class_count is {data.class_count}, but the training normals are of "
            f"{len(kinds)} classes ({named}). Set --data.class-count {len(kinds)}."
        )
    return {kind: number for number, kind in enumerate(kinds)}


def manifest_kinds(data: DataConfig, tree: Tree) -> Mapping[str, str]:
    """Give the manifest's column `class` by file, where classes are asked for.

    Raises:
        ConfigError: they are asked for, and no manifest tells them.
    """
    if data.classes != "source":
        return {}
    kinds = manifest_column(data, tree, "class", needed=False) if data.manifest else {}
    if not kinds:
        where = f"manifest '{data.manifest}' has none" if data.manifest else "no manifest is named"
        raise ConfigError(
            f"--data.classes source needs the class of each normal image of source "
            f"'{data.source}' from the column class of a manifest, but {where}. Add the column "
            "(and --data.manifest), or take --data.classes one or kmeans."
        )
    return kinds


def refuse_unknown(items: Sequence[Item], numbers: Mapping[str, int]) -> None:
    """Refuse images without a class.

    Raises:
        DataError: an item has no kind, or one that no training normal has.
    """
    strange = [item for item in items if item.kind not in numbers]
    if strange:
        first = strange[0]
        raise DataError(
            f"{len(strange)} image(s) have a class that no training normal has, or none; the "
            f"first is {shown(first.name)} (class {first.kind!r}). Classes are "
            f"{', '.join(numbers)}: correct the column class of the manifest, or leave these "
            "images out."
        )


def classes_of(items: Sequence[Item], numbers: Mapping[str, int]) -> np.ndarray:
    """Give the class of each item, int64 [N]; `UNKNOWN` where it has none."""
    return np.array([numbers.get(item.kind, UNKNOWN) for item in items], dtype=np.int64)
