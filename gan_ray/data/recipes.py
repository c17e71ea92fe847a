"""Recipes: the data settings of the sets that papers use, by name (`--data.recipe`).

A recipe fills in what the user does not set: layout, size, colours, and how a file name tells the
patient. It never sets the root, nor which class of a labelled set is normal: papers report all of
them. What each set must look like on disk, its protocol and its split sizes: docs/datasets.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from gan_ray.errors import ConfigError, unknown

_LISTS = {
    "source": "data-json",
    "image_size": 64,
    "channels": 1,
    "anomaly_ratio": 0.6,
    "unlabeled_size": 0,
}
_MNIST = {"source": "idx", "image_size": 32, "channels": 1}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "mnist": _MNIST,
    "fashion_mnist": _MNIST,
    "cifar10": {"source": "cifar10", "image_size": 32, "channels": 3},
    "svhn": {"source": "svhn", "image_size": 32, "channels": 3},
    "mvtec_ad": {"source": "folder", "image_size": 128, "channels": 3},
    "rsna": _LISTS,
    "vindr_cxr": _LISTS,
    "lag": _LISTS,
    "brain_tumor": _LISTS,
    "chestxray14": {
        "source": "csv",
        "image_size": 256,
        "channels": 1,
        "group_pattern": r"^(\d{8})_\d{3}\.",
    },
    "covidx": {"source": "folder", "image_size": 256, "channels": 3},
    "adni": {
        "source": "folder",
        "image_size": 192,
        "channels": 1,
        "group_pattern": r"(\d{3}_S_\d{4})",
    },
    "ixi": {
        "source": "folder",
        "image_size": 192,
        "channels": 1,
        "group_pattern": r"(IXI\d+)",
    },
    "brats": {
        "source": "folder",
        "image_size": 64,
        "channels": 1,
        "group_pattern": r"(BraTS[0-9A-Za-z]*_\d+)",
    },
}
"""Fields of DataConfig by the name of the data set."""


def recipe_settings(name: str) -> Mapping[str, Any]:
    """Give the data settings of a recipe, its name among them; none for no name.

    Raises:
        ConfigError: there is no such recipe.
    """
    if not name:
        return {}
    if name not in RECIPES:
        raise ConfigError(unknown("recipe", name, RECIPES))
    return {**RECIPES[name], "recipe": name}


def recipe_among(words: Sequence[str]) -> str:
    """Give the recipe that words of a command line name, or nothing; other words are let be.

    To be asked before they are parsed: a recipe decides what the other settings default to.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--data.recipe", dest="recipe", nargs="?", const="", default="")
    return str(parser.parse_known_args(list(words))[0].recipe)
