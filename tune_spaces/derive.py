"""Search spaces out of configuration classes: every annotated field is a dimension.

Keys are dotted paths as on the command line, such as `model.weights.identity`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from gan_ray.errors import ConfigError
from gan_ray.ranges import Choice, IntRange, LogUniform, Range, Uniform, Value, When
from tune_spaces.space import Space

STUDIES: Mapping[str, tuple[str, ...]] = {
    "weights": ("model.weights.",),
    "encodings": ("model.encoding",),
    "architecture": ("model.weights.",),
    "full": ("model.", "score."),
}
"""A study's name and what the keys that it searches begin with; it searches those, too, that matter
only under some of their values."""

Method = Literal["tpe", "random", "grid"]
METHODS: tuple[str, ...] = get_args(Method)
"""How the points of a study are chosen."""

Narrowing = tuple[float, float] | Choice
"""What is left of a range: what lies between two ends, or the points of a list."""


def derive(config: type[Any], prefix: str = "") -> Space:
    """Give the ranges of all annotated fields of a config class and of those nested in it.

    Raises:
        KeyError: a condition names a field that is not further up; a fault of the class.
    """
    found = list(_dimensions(config, prefix, {}, ()))
    return Space({key: values for key, values, _ in found}, {key: when for key, _, when in found})


def _dimensions(
    config: type[Any], prefix: str, around: Mapping[str, str], outer: tuple[When, ...]
) -> Iterator[tuple[str, Range, tuple[When, ...]]]:
    """Give key, range and conditions; `around` are the keys of the fields above, by their names."""
    hints = get_type_hints(config, include_extras=True)
    above = dict(around)
    for field in dataclasses.fields(config):
        hint, key = hints[field.name], prefix + field.name
        kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        when = outer + tuple(mark.named(above) for mark in marks if isinstance(mark, When))
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from _dimensions(kind, f"{key}.", above, when)
        for mark in marks:
            if isinstance(mark, Range):
                yield key, mark, when
        above[field.name] = key


def members(study: str, space: Space) -> list[str]:
    """Give the keys of a space that a study searches, in their order."""
    found: list[str] = []
    for key in space:
        decided_by = {
            name for when in space.conditions.get(key, ()) for name, _ in when.alternatives
        }
        if key.startswith(STUDIES[study]) or not decided_by.isdisjoint(found):
            found.append(key)
    return found


def narrow(key: str, wide: Range, low: float, high: float) -> Range:
    """Give the part of a range that lies in [low, high]; of a choice, the options that do.

    Raises:
        ConfigError: `low` or `high` lie outside of the range, or nothing to choose from is left.
    """
    if isinstance(wide, Choice):
        left = [number for number in _numbers(wide) if low <= number <= high]
        if len(left) < 2:
            raise ConfigError(
                f"--range {key}={low:g}:{high:g} leaves {len(left)} of the options "
                f"{', '.join(map(str, wide.options))}: leave two or more, or set one by --fix."
            )
        return Choice(*left)
    if not wide.low <= low < high <= wide.high:
        raise ConfigError(
            f"--range {key}={low:g}:{high:g} does not narrow {wide.low:g}:{wide.high:g}: a study "
            f"may only narrow. Give two ends within, the lower first, or set a value by --fix."
        )
    if isinstance(wide, IntRange):
        if low != int(low) or high != int(high):
            raise ConfigError(f"--range {key}={low:g}:{high:g}: {key} is a whole number.")
        return IntRange(int(low), int(high))
    return LogUniform(low, high) if isinstance(wide, LogUniform) else Uniform(low, high)


def pick(key: str, wide: Range, points: Choice) -> Choice:
    """Give the listed points of a range as a choice.

    Raises:
        ConfigError: one is not of the range, or is listed twice.
    """
    listed = ",".join(map(str, points.options))
    for point in points.options:
        if not contains(wide, point):
            raise ConfigError(
                f"--range {key}={listed}: '{point}' is not among {said(wide)}: a study may "
                "only narrow. List values of it, or set one by --fix."
            )
    if len(set(points.options)) < len(points.options):
        raise ConfigError(f"--range {key}={listed} lists a value twice: list each once.")
    return points


def contains(values: Range, wanted: Value) -> bool:
    """Tell whether a value lies in a range."""
    if isinstance(values, Choice):
        return wanted in values.options
    kind = int if isinstance(values, IntRange) else (int, float)
    number = isinstance(wanted, kind) and not isinstance(wanted, bool)
    return number and values.low <= wanted <= values.high  # type: ignore[operator]


def said(values: Range) -> str:
    """Give a range in words."""
    if isinstance(values, Choice):
        return ", ".join(map(str, values.options))
    kinds = {IntRange: "whole numbers", LogUniform: "on a log scale", Uniform: "evenly"}
    return f"{values.low:g} to {values.high:g}, {kinds[type(values)]}"


def nearest(values: Range, wanted: Value) -> Value:
    """Give `wanted` when it lies in the range, else the nearest value that does.

    Among options that are not numbers, none is near: the first one then.
    """
    if not isinstance(values, Choice):
        return min(max(wanted, values.low), values.high)  # type: ignore[type-var]
    if wanted in values.options:
        return wanted
    if not isinstance(wanted, (int, float)):
        return values.options[0]
    return min(_numbers(values), key=lambda number: abs(number - wanted), default=values.options[0])


def corners(values: Range) -> tuple[Value, ...]:
    """Give the ends of a range, or all options of a choice."""
    return values.options if isinstance(values, Choice) else (values.low, values.high)


def _numbers(choice: Choice) -> list[int | float]:
    return [o for o in choice.options if isinstance(o, (int, float)) and not isinstance(o, bool)]
