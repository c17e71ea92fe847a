"""Search ranges as plain markers for `Annotated`: the configuration is the search space.

`weight: Annotated[float, LogUniform(1.0, 100.0)] = 50.0` reads as a float everywhere; only
`tune_spaces.derive` looks at the marker. `When` beside it says under which other settings the field
matters at all. No Ray here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Value = str | int | float | bool | None
"""What a setting that can be searched is."""


@dataclass(frozen=True)
class Uniform:
    """A float, uniform in [low, high]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse an empty range."""
        if not self.low < self.high:
            raise ValueError(f"`low < high` must hold, but got (low={self.low}, high={self.high})")


@dataclass(frozen=True)
class LogUniform:
    """A positive float, uniform in the logarithm over [low, high]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse an empty range and anything a logarithm has no value for."""
        if not 0 < self.low < self.high:
            raise ValueError(
                f"`0 < low < high` must hold, but got (low={self.low}, high={self.high})"
            )


@dataclass(frozen=True)
class IntRange:
    """An integer, uniform in [low, high], both ends included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        """Refuse an empty range."""
        if not self.low < self.high:
            raise ValueError(f"`low < high` must hold, but got (low={self.low}, high={self.high})")


@dataclass(frozen=True, init=False)
class Choice:
    """One of the listed values: `Choice(16, 32, 64)`, `Choice("izi", "ziz")`."""

    options: tuple[Value, ...]

    def __init__(self, *options: Value) -> None:
        """Take the options in their order; at least two."""
        if len(options) < 2:
            raise ValueError(f"a choice needs at least two options, but got {options}")
        object.__setattr__(self, "options", options)


Range = Uniform | LogUniform | IntRange | Choice


@dataclass(frozen=True, init=False)
class When:
    """The field matters only where one of the named fields has one of its values.

    `When(encoding=("rope", "alibi"), attention=True)`: with either encoding, or with attention.
    A name is that of a field further up, in the same config class or in one around it. A text of
    several names joined by + (`binary+rope`) counts for each of them. On a nested config class it
    holds for all its fields; several of them must all hold.
    """

    alternatives: tuple[tuple[str, tuple[Value, ...]], ...]

    def __init__(self, **alternatives: Value | tuple[Value, ...]) -> None:
        """Take the values, one or a tuple of them, by the name of their field."""
        each = ((n, v if isinstance(v, tuple) else (v,)) for n, v in alternatives.items())
        object.__setattr__(self, "alternatives", tuple(each))

    def named(self, names: Mapping[str, str]) -> When:
        """Give the same with other names; raises KeyError for one that has none."""
        return When(**{names[name]: allowed for name, allowed in self.alternatives})

    def holds(self, settings: Mapping[str, Value]) -> bool:
        """Tell whether it holds among settings, by name; a setting that is missing is no reason."""
        return any(
            name in settings and is_one(settings[name], allowed)
            for name, allowed in self.alternatives
        )

    def __str__(self) -> str:
        """Give it in words."""
        return " or ".join(
            f"{name} is {' or '.join(map(str, allowed))}" for name, allowed in self.alternatives
        )


def is_one(value: Value, allowed: tuple[Value, ...]) -> bool:
    """Tell whether a value, or a name joined into it by +, is among those allowed."""
    parts = value.split("+") if isinstance(value, str) else [value]
    return any(part in allowed for part in parts)
