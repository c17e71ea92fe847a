"""What the page says, as plain values for programs: the same figures without drawings and pixels.

Scores of single images stay in evaluation.json; here are what is made of them and its cases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gan_ray.report import words
from gan_ray.report.sources import Evaluation, Run, Search, Source

TRIALS = 10
"""Trials of a search that are shown, the best ones."""


def summarise(sources: Sequence[Source]) -> dict[str, Any]:
    """Give `evaluations`, `runs` and `searches` in the order of the page, ready for JSON.

    A number that is not finite, as a diverged training reports, is None.
    """
    told = {
        "evaluations": [evaluation(each) for each in sources if isinstance(each, Evaluation)],
        "runs": [run(each) for each in sources if isinstance(each, Run)],
        "searches": [search(each) for each in sources if isinstance(each, Search)],
    }
    finite: dict[str, Any] = _finite(told)
    return finite


def evaluation(source: Evaluation) -> dict[str, Any]:
    """Give models and baselines with their figures, outcomes and cases, and the paired tests."""
    content = source.content
    return {
        "name": source.name,
        "data": content["data"],
        "models": [_judged(model) for model in content["models"]],
        "baselines": [_judged(model) for model in content.get("baselines", [])],
        "paired": content.get("paired", []),
    }


def run(source: Run) -> dict[str, Any]:
    """Give settings, last report, speed, the chosen checkpoint and the threshold of a training."""
    speeds = [r["images_per_second"] for r in source.metrics if "images_per_second" in r]
    return {
        "name": source.name,
        "experiment": source.experiment,
        "environment": source.environment,
        "last": source.metrics[-1] if source.metrics else {},
        "seconds": sum(report.get("seconds", 0.0) for report in source.metrics),
        "speed": float(np.median(speeds)) if speeds else None,
        "selection": source.selection,
        "threshold": {key: source.threshold[key] for key in ("value", "fpr", "images")}
        | {"upper": source.threshold["calibration"]["bound"]["upper"]}
        if source.threshold
        else {},
    }


def search(source: Search) -> dict[str, Any]:
    """Give what was chosen in a sweep, its best trials, and what it all took.

    `ranked` has the best first; `stopped` early, `failed` and `removed` (whose checkpoints went to
    save room) are in order of their numbers.
    """
    content = source.content
    trials = content["trials"]
    scored = [trial for trial in trials if trial.get("value") is not None]
    ranked = sorted(scored, key=lambda trial: (-trial["value"], trial["number"]))
    return {
        "name": source.name,
        "study": content["study"],
        "objective": content["objective"],
        "selection": content.get("selection"),
        "trials": len(trials),
        "queue": content.get("queue"),
        "best": content.get("best"),
        "ranked": ranked[:TRIALS],
        "stopped": [_stopped(trial) for trial in trials if trial["state"] == "pruned"],
        "failed": [_failed(trial) for trial in trials if trial["state"] == "failed"],
        "removed": [trial["number"] for trial in trials if trial.get("removed")],
        "budget": content.get("budget"),
        "took": _took(trials),
        "importance": content.get("importance") or {},
        "pareto": content.get("pareto") or [],
        "cost": content.get("cost"),
    }


def _stopped(trial: Mapping[str, Any]) -> dict[str, Any]:
    """Give at which rung a trial was stopped, with which value and below which threshold."""
    why = trial.get("stopped") or {}
    told = {key: why.get(key) for key in ("rung", "value", "threshold", "compared")}
    return {key: trial[key] for key in ("number", "architecture", "seconds")} | told


def _failed(trial: Mapping[str, Any]) -> dict[str, Any]:
    return {key: trial.get(key) for key in ("number", "architecture", "images", "reason")}


def _took(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give seconds and images of all trials, and which share of the seconds went where."""
    seconds = {state: sum(trial["seconds"] for trial in trials if trial["state"] == state)
               for state in ("complete", "pruned", "failed", "running")}  # fmt: skip
    total = sum(seconds.values())
    return {
        "seconds": total,
        "images": sum(trial["images"] for trial in trials),
        "stopped_share": seconds["pruned"] / total if total else 0.0,
        "failed_share": seconds["failed"] / total if total else 0.0,
        "reused_seconds": sum(trial.get("reused_seconds") or 0.0 for trial in trials),
    }


def _judged(model: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: value for key, value in model.items() if key not in ("scores", "roc")}
    if heads := model.get("heads"):
        own = {name: {"metrics": each["metrics"]} for name, each in heads["figures"].items()}
        told["heads"] = {**heads, "figures": own}
    return told | {"outcomes": words.counts(model)}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
