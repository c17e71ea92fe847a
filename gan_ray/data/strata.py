"""Strata: what the manifest says of an image before it is scored, such as scanner, site or product.

They shape no training and are no part of its data; thresholds are set and judged by them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from gan_ray.config import DataConfig
from gan_ray.data.groups import manifest_column
from gan_ray.data.items import Item
from gan_ray.data.manifest import MANIFEST
from gan_ray.data.sources import list_training, open_source
from gan_ray.data.tree import open_tree
from gan_ray.errors import ConfigError

_ANSWERS = ("file", "split", "label", "sublabel", "mask")


def strata_of_calibration(data: DataConfig, column: str) -> np.ndarray:
    """Give the stratum of each calibration normal of `load_training`, strings [n] in its order.

    Empty where the cell is. Opens no image.

    Raises:
        ConfigError: there is no manifest, or the column is none that an image to be scored has.
        DataError: there is no such column.
    """
    return _strata(list_training(data).calibrate, data, column, needed=True)


def strata_of_test(data: DataConfig, column: str) -> np.ndarray:
    """Give the stratum of each image of `load_test`, strings [N] in its order; empty if not told.

    Opens neither images nor labels.
    """
    return _strata(open_source(data).test(), data, column, needed=False)


def _strata(items: Sequence[Item], data: DataConfig, column: str, *, needed: bool) -> np.ndarray:
    if column in _ANSWERS:
        raise ConfigError(
            f"column '{column}' cannot tell strata: of an image that is to be scored it is not "
            "known. Name one that is, such as the scanner, the site or the product (--by)."
        )
    if column == "group":
        raise ConfigError(
            "column 'group' cannot tell strata: a patient's images are either all held out or all "
            "tested. Name a column that patients share, such as the scanner or the site (--by)."
        )
    if data.source == "csv":
        data = dataclasses.replace(data, manifest=data.manifest or MANIFEST)
    if not data.manifest:
        if needed:
            raise ConfigError(
                f"strata by '{column}' are told by a column of a manifest, but these data have "
                "none. Train with --data.manifest (or --data.source csv), or leave out --by."
            )
        return np.full(len(items), "")
    told = manifest_column(data, open_tree(data.root), column, needed=needed)
    return np.array([told.get(item.name, "") for item in items], dtype=np.str_)
