"""Successive halving as it is told: at which images trials are compared, and why one was stopped.

The decision is ASHA's, in Ray; it is worked out again from the reports on record, with which it
agrees because they are all that ASHA sees.
"""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

History = Sequence[tuple[int, float]]
"""(images, objective) of a trial's reports, oldest first."""

REDUCTION = 2
"""At each rung the worse half is stopped; rungs lie at doubling numbers of images."""


def milestones(first: int, last: int) -> list[int]:
    """Give the images of the rungs, from the first that `rungs` of the sweep gives to its last."""
    found = [first]
    while found[-1] * REDUCTION <= last:
        found.append(found[-1] * REDUCTION)
    return found


def why_stopped(
    stopped: History, others: Iterable[History], rungs: Sequence[int]
) -> dict[str, Any] | None:
    """Give rung, value and threshold of a trial that was stopped by its last report.

    The threshold is the median of what the others reported first at that rung. None where the
    reports do not explain it, such as without any.
    """
    if not stopped or bisect_right(rungs, stopped[-1][0]) == 0:
        return None
    rung = bisect_right(rungs, stopped[-1][0]) - 1
    seen = [first for history in others if (first := _first_at(rung, history, rungs)) is not None]
    if not seen or (threshold := statistics.median(seen)) <= stopped[-1][1]:
        return None
    return {
        "rung": rungs[rung],
        "value": stopped[-1][1],
        "threshold": threshold,
        "compared": len(seen),
    }


def _first_at(rung: int, history: History, rungs: Sequence[int]) -> float | None:
    return next(
        (value for images, value in history if bisect_right(rungs, images) - 1 == rung), None
    )
