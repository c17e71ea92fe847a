"""A search space: ranges by key, and under which other settings each matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from gan_ray.ranges import Choice, IntRange, LogUniform, Range, Value, When, is_one

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Point = dict[str, Value]
"""Settings by their keys, of those dimensions that matter beside each other."""


class Space(Mapping[str, Range]):
    """Ranges by key, in an order in which a dimension comes after those that decide about it."""

    def __init__(
        self, ranges: Mapping[str, Range], conditions: Mapping[str, tuple[When, ...]] | None = None
    ) -> None:
        """Take the ranges and, for dimensions that do not always matter, what must hold."""
        self._ranges = dict(ranges)
        self.conditions = {key: when for key, when in (conditions or {}).items() if when}

    def __getitem__(self, key: str) -> Range:
        """Give the range of a key."""
        return self._ranges[key]

    def __iter__(self) -> Iterator[str]:
        """Give the keys."""
        return iter(self._ranges)

    def __len__(self) -> int:
        """Give the number of dimensions."""
        return len(self._ranges)

    def __or__(self, other: Space) -> Space:
        """Give the dimensions of both, of different keys."""
        return Space({**self, **other}, {**self.conditions, **other.conditions})

    def __repr__(self) -> str:
        """Give ranges and conditions."""
        return f"Space({self._ranges}, {self.conditions})"

    def where(self, key: str) -> str:
        """Give in words where a dimension matters; empty for everywhere."""
        return " and ".join(map(str, self.conditions.get(key, ())))

    def said(self) -> dict[str, str]:
        """Give range and conditions of each dimension as one text."""
        return {
            key: f"{values!r} where {self.where(key)}" if self.where(key) else repr(values)
            for key, values in self.items()
        }

    def matters(self, key: str, drawn: Mapping[str, Value]) -> bool:
        """Tell whether a dimension matters beside what was drawn for those before it."""
        return all(condition.holds(drawn) for condition in self.conditions.get(key, ()))

    def draw(self, choose: Callable[[str, Range], Value]) -> Point:
        """Give a point: what `choose` says of each dimension that matters beside those before."""
        drawn: Point = {}
        for key, values in self.items():
            if self.matters(key, drawn):
                drawn[key] = choose(key, values)
        return drawn

    def suggest(self, trial: BaseTrial) -> Point:
        """Give the point that Optuna chooses for a trial."""

        def choose(key: str, values: Range) -> Value:
            chosen: Value
            if isinstance(values, Choice):
                chosen = trial.suggest_categorical(key, values.options)
            elif isinstance(values, IntRange):
                chosen = trial.suggest_int(key, values.low, values.high)
            else:
                log = isinstance(values, LogUniform)
                chosen = trial.suggest_float(key, values.low, values.high, log=log)
            return chosen

        return self.draw(choose)

    def within(self, wanted: Mapping[str, Range], settings: Mapping[str, Value]) -> Space:
        """Give the part that is `wanted`, of these ranges; all else is as in `settings`.

        Left out are dimensions that then cannot matter, and conditions that then always hold.
        """
        part = Space({})
        for key in filter(wanted.__contains__, self):
            left = [_left(when, part, wanted, settings) for when in self.conditions.get(key, ())]
            if all(left):
                part._ranges[key] = wanted[key]
                if asked := tuple(when for when in left if isinstance(when, When)):
                    part.conditions[key] = asked
        return part


def _left(
    when: When, part: Space, wanted: Mapping[str, Range], settings: Mapping[str, Value]
) -> When | bool:
    """Give what is left to be asked of a point: some of the alternatives, or what holds anyway."""
    known = {name: settings.get(name) for name, _ in when.alternatives if name not in wanted}
    if when.holds(known):
        return True
    drawn = {name: allowed for name, allowed in when.alternatives
             if name in part and _can_be(part[name], allowed)}  # fmt: skip
    certain = any(
        name not in part.conditions and _must_be(part[name], allowed)
        for name, allowed in drawn.items()
    )
    return certain or (bool(drawn) and When(**drawn))


def _can_be(values: Range, allowed: tuple[Value, ...]) -> bool:
    return not isinstance(values, Choice) or any(is_one(one, allowed) for one in values.options)


def _must_be(values: Range, allowed: tuple[Value, ...]) -> bool:
    return isinstance(values, Choice) and all(is_one(one, allowed) for one in values.options)
