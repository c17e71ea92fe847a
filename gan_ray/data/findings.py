"""What a check of a data set finds: sentences that name files and end with what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

NAMED = 5
"""Files that a sentence names, at most."""


@dataclass(frozen=True)
class Findings:
    """Errors, which make a data set unusable, and warnings."""

    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def some(names: Sequence[str]) -> str:
    """Give the first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def in_test(part: str) -> bool:
    """Say whether a part of a data set belongs to the test split."""
    return part.partition("/")[0] == "test"


def leaks(first: str, second: str) -> bool:
    """Say whether what two parts share makes figures on the test split too good."""
    return in_test(first) != in_test(second)


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Give every two names once, in their order."""
    ordered = list(names)
    return [(a, b) for index, a in enumerate(ordered) for b in ordered[index + 1 :]]
