"""Search ranges as plain markers for `Annotated`: the configuration is the search space.

`weight: Annotated[float, LogUniform(1.0, 100.0)] = 50.0` reads as a float everywhere; only
`tune_spaces.derive` looks at the marker. No Ray here.
"""

from __future__ import annotations

from dataclasses import dataclass


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

    options: tuple[str | int | float | bool | None, ...]

    def __init__(self, *options: str | int | float | bool | None) -> None:
        """Take the options in their order; at least two."""
        if len(options) < 2:
            raise ValueError(f"a choice needs at least two options, but got {options}")
        object.__setattr__(self, "options", options)


Range = Uniform | LogUniform | IntRange | Choice
