"""Dotted settings: `{"model.weights.identity": 5.0}` read from and laid over an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gan_ray.config import Experiment, to_dict
from gan_ray.experiment import parse


def with_settings(experiment: Experiment[Any], settings: Mapping[str, Any]) -> Experiment[Any]:
    """Lay dotted `settings` over an experiment.

    Raises:
        ConfigError: a key is unknown, a value does not fit, or the parts do not go together.
    """
    plain = to_dict(experiment)
    for key, value in settings.items():
        *parents, name = key.split(".")
        place = plain
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return parse(plain)
