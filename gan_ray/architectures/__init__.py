"""The systems, one file each; this module finds them.

A file that begins with an underscore holds steps that several systems share.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache

from gan_ray.detector import Detector
from gan_ray.errors import ConfigError, unknown


@cache
def _registry() -> dict[str, type[Detector]]:
    registry: dict[str, type[Detector]] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        if module.startswith("_"):
            continue
        found = [
            cls
            for _, cls in inspect.getmembers(
                importlib.import_module(f"{__name__}.{module}"), inspect.isclass
            )
            if issubclass(cls, Detector) and cls.__module__ == f"{__name__}.{module}"
        ]
        if len(found) != 1:
            raise TypeError(f"{module}.py must define exactly one Detector, found {found}")
        registry[found[0].name] = found[0]
    return registry


def names() -> tuple[str, ...]:
    """Names of all systems, sorted."""
    return tuple(sorted(_registry()))


def get(name: str) -> type[Detector]:
    """Give the system called `name`.

    Raises:
        ConfigError: no such system; lists the known ones and the nearest.
    """
    try:
        return _registry()[name]
    except KeyError:
        raise ConfigError(unknown("architecture", name, names())) from None
