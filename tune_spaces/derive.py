"""Search spaces out of configuration classes: every annotated field is a dimension.

Keys are dotted paths as on the command line, such as `model.weights.identity`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from gan_ray.errors import ConfigError
from gan_ray.ranges import Choice, IntRange, LogUniform, Range, Uniform

Value = str | int | float | bool | None
"""What a dimension can take."""

STUDIES: Mapping[str, tuple[str, ...]] = {
    "weights": ("model.weights.",),
    "full": ("model.", "score."),
}
"""A study's name and what the keys that it searches begin with."""


def derive(config: type[Any], prefix: str = "") -> dict[str, Range]:
    """Give the ranges of all annotated fields of a config class and of those nested in it."""
    hints = get_type_hints(config, include_extras=True)
    space: dict[str, Range] = {}
    for field in dataclasses.fields(config):
        hint, key = hints[field.name], prefix + field.name
        if get_origin(hint) is Annotated:
            marks = [mark for mark in get_args(hint)[1:] if isinstance(mark, Range)]
            if marks:
                space[key] = marks[0]
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
            space |= derive(hint, f"{key}.")
    return space


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
