"""Settings as the command line gives them: `--model.… --data.… --train.…`, laid over defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tyro

from gan_ray.config import DataConfig, Experiment, to_dict
from gan_ray.data.recipes import recipe_among, recipe_settings
from gan_ray.experiment import make, parse

_SECTIONS = ("seed", "model", "data", "train", "score")


def experiment_settings(
    architecture: str, variant: str, preset: str, arguments: Sequence[str], verb: str
) -> Experiment[Any]:
    """Lay `arguments` over preset, variant and recipe.

    Raises:
        ConfigError: a name is unknown or a setting does not fit.
        SystemExit: an argument that no setting is called by (2), or `--help` (0).
    """
    changes = {"data": {"recipe": recipe_among(arguments)}}
    base = make(architecture, variant=variant, preset=preset, changes=changes)
    settings = dataclasses.make_dataclass(
        "Settings", [(name, type(getattr(base, name)), getattr(base, name)) for name in _SECTIONS]
    )
    chosen: Any = tyro.cli(settings, args=list(arguments), prog=f"gan-ray {verb} {architecture}")
    changed = {name: getattr(chosen, name) for name in _SECTIONS}
    return parse(to_dict(dataclasses.replace(base, **changed)))


def data_settings(arguments: Sequence[str], verb: str, default: DataConfig) -> DataConfig:
    """Lay `--data.…` alone over `default`; raises as `experiment_settings` does."""
    default = dataclasses.replace(default, **recipe_settings(recipe_among(arguments)))
    settings = dataclasses.make_dataclass("Settings", [("data", type(default), default)])
    chosen: DataConfig = tyro.cli(settings, args=list(arguments), prog=f"gan-ray {verb}").data
    return chosen
