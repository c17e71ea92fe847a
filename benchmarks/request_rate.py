"""Requests to an object store when many workers start at once, and at reports: a simulation.

Every worker reads its images by some threads. Each thread asks, waits, asks again; the store
answers so many requests per second and refuses the others (503 SlowDown), which wait as boto does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GETS_PER_SECOND = 5500
"""S3's stated limit per prefix; 3,500 for writes (Amazon S3 user guide, "Best practices design
patterns: optimizing Amazon S3 performance")."""
PUTS_PER_SECOND = 3500
ATTEMPTS = 8
"""Of one request, as in `gan_ray.storage.s3`."""
QUOTA, RETRY_COST = 500, 5
"""Boto's standard mode: retries of a process draw on a purse, which successes fill again."""
LONGEST_WAIT = 20.0


@dataclass(frozen=True)
class Reading:
    """How it went."""

    seconds: float
    """Until the last worker had all, or gave up."""
    requests: int
    """All that the store saw."""
    peak: float
    """Most requests in one second."""
    refused: float
    """Share of the requests."""
    failed: int
    """Workers that ran out of attempts or of the purse: their training does not start."""


def read_all(
    workers: int,
    images: int,
    *,
    threads: int = 16,
    limit: float = GETS_PER_SECOND,
    latency: float = 0.05,
    seed: int = 0,
    persistent: bool = False,
) -> Reading:
    """Let every worker read `images` objects once, from one prefix.

    Time goes in steps of `latency`, the seconds that an answer takes. `persistent` never gives up,
    which tells how long the bare limit would take.
    """
    draw = np.random.default_rng(seed)
    owner = np.repeat(np.arange(workers), threads)
    wakes = np.zeros(len(owner))
    tries = np.zeros(len(owner), dtype=np.int64)  # of the request at hand, so far refused
    left = np.full(workers, images)  # not yet taken up by a thread
    busy = np.zeros(len(owner), dtype=bool)
    purse = np.full(workers, QUOTA)
    failed = np.zeros(workers, dtype=bool)
    per_step: list[int] = []
    refused, now, budget = 0, 0.0, 0.0
    while True:
        # Idle threads take up the next image of their worker, in the order of the threads.
        idle = np.flatnonzero(~busy & ~failed[owner] & (left[owner] > 0))
        if len(idle):
            firsts = np.searchsorted(owner[idle], owner[idle])
            given = idle[np.arange(len(idle)) - firsts < left[owner[idle]]]
            busy[given], tries[given], wakes[given] = True, 0, now
            left -= np.bincount(owner[given], minlength=workers)
        if not busy.any():
            break
        asking = draw.permutation(np.flatnonzero(busy & (wakes <= now + 1e-9)))
        per_step.append(len(asking))
        budget = min(budget + limit * latency, limit)
        served = asking[: int(budget)]
        budget -= len(served)
        turned = asking[len(served) :]
        refused += len(turned)
        again = served[tries[served] > 0]
        purse += np.bincount(owner[again], minlength=workers) * RETRY_COST
        purse += np.bincount(owner[served[tries[served] == 0]], minlength=workers)
        np.minimum(purse, QUOTA, out=purse)
        busy[served] = False
        tries[turned] += 1
        if not persistent:
            purse -= np.bincount(owner[turned], minlength=workers) * RETRY_COST
            lost = turned[tries[turned] >= ATTEMPTS]
            failed[owner[lost]] = True
            failed |= purse < 0
            busy &= ~failed[owner]
        longest = np.minimum(2.0 ** (tries[turned] - 1), LONGEST_WAIT)
        wakes[turned] = now + latency + draw.random(len(turned)) * longest
        now += latency
    window = max(1, round(1 / latency))
    rates = np.convolve(per_step, np.ones(window), mode="full")
    return Reading(now, sum(per_step), float(rates.max()), refused / sum(per_step),
                   int(failed.sum()))  # fmt: skip


def writes_at_report(*, pictures: int = 1, ray: bool = True) -> int:
    """Give the writing requests of one report; rank 0 makes them, however many workers there are.

    PUT: scores, pictures, three files of the checkpoint, metrics, selection, log, Ray's own note.
    DELETE: the digest that may be there from a torn write, three files of a checkpoint that is not
    kept. LIST: S3 states no limit for it, so it counts among these.
    """
    return 1 + pictures + 3 + 3 + ray + 1 + 3 + 1


def most_trials(seconds_between_reports: float) -> int:
    """Give how many trainings below one prefix may report so often before S3's limit for writes."""
    return int(PUTS_PER_SECOND * seconds_between_reports / writes_at_report())
