from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import ASHAScheduler

from tune_spaces.halving import REDUCTION, milestones, why_stopped

FIRST, LAST = 200, 1799


def asha(first: int, last: int) -> ASHAScheduler:
    return ASHAScheduler(
        time_attr="images",
        metric="v",
        mode="max",
        grace_period=first,
        max_t=max(first, last),
        reduction_factor=REDUCTION,
        stop_last_trials=False,
    )


def test_rungs_lie_where_asha_has_them() -> None:
    for first, last in ((FIRST, LAST), (1, 1), (3, 100), (480, 799)):
        (bracket,) = asha(first, last)._brackets
        assert milestones(first, last) == sorted(images for images, _ in bracket._rungs)


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=9),
    st.sampled_from([50, 90, 200, 450]),
)
def test_what_is_told_of_a_stop_is_what_asha_decided(trials, interval) -> None:
    scheduler, known = asha(FIRST, LAST), []
    for number, values in enumerate(trials):
        trial = SimpleNamespace(trial_id=str(number))
        scheduler.on_trial_add(None, trial)
        history, stopped = [], False
        for report, value in enumerate(values, 1):
            history.append((report * interval, value))
            result = {"images": report * interval, "v": value}
            stopped = scheduler.on_trial_result(None, trial, result) == "STOP"
            if stopped:
                break
        told = why_stopped(history, known, milestones(FIRST, LAST))
        if stopped:
            assert told is not None
            assert told["value"] == history[-1][1] < told["threshold"]
            assert told["rung"] <= history[-1][0]
        known.append(history)


def test_the_threshold_is_the_median_of_what_was_first_seen_at_the_rung() -> None:
    others = [[(100, 0.9), (200, 0.5), (300, 0.9)], [(250, 0.7)], [(100, 0.8)]]
    assert why_stopped([(100, 0.3), (200, 0.55)], others, [200, 400]) == {
        "rung": 200, "value": 0.55, "threshold": pytest.approx(0.6), "compared": 2}  # fmt: skip


@pytest.mark.parametrize("history", [[], [(100, 0.1)], [(200, 0.95)]])
def test_what_no_rung_explains_is_not_explained(history) -> None:
    assert why_stopped(history, [[(200, 0.9)]], [200, 400]) is None
    assert why_stopped([(200, 0.1)], [], [200]) is None
