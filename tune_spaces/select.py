"""Choose a sweep's winner without a test label, say how sure that is, publish its bundle."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gan_ray.artifacts.export import export
from gan_ray.artifacts.store import NEXT
from gan_ray.artifacts.store import publish as publish_bundle
from gan_ray.errors import DataError
from gan_ray.scoring.selection import DISTRUST, trusted
from gan_ray.storage.store import open_store
from gan_ray.training.run import RunFolder
from tune_spaces.objectives import COSTS, OBJECTIVES, check_objective, pareto
from tune_spaces.record import SWEEP, best, read

SELECTION = "selection.json"
_SURE = 1.96
"""Standard errors of a difference that are not put down to chance (two-sided, 95 %)."""
_OF_MEDIAN = math.sqrt(math.pi / 2)
"""Standard error of a median in those of a mean, for a normal distribution."""


def select(sweep_uri: str, *, by: str = "", publish: str = "") -> dict[str, Any]:
    """Choose the trial whose chosen checkpoint has the highest figure; writes `selection.json`.

    `by` is aucp, pseudo, or validation for a labelled validation split; by default what the sweep
    searched for. Where the sweep has finalists, the winner is the one of the highest median over
    seeds, and the run of it with the highest figure is chosen. With `publish` that run is exported
    and put into that registry, as the architecture's newest version.

    Raises:
        ConfigError: `by` is none of these, or made of test labels.
        DataError: no sweep there, or no trial with that figure.
        ArtifactError: the winner fails the gate of `export`.
    """
    content = read(sweep_uri)
    keys: dict[str, str] = {short: key for key, short in OBJECTIVES.items()}
    key = keys.get(by, by) or content.get("objective", "val/aucp")
    check_objective(key)
    rows = [{**row, **_figure(row, key)} for row in content["trials"]]
    further = [{**row, **_figure(row, key)} for row in content.get("finalists", [])]
    candidates = _finalists(rows, further) or rows
    winner = best(candidates)
    if winner is None:
        raise DataError(
            f"no trial of {sweep_uri} has a '{key}' to choose by: see the reasons in {SWEEP}, or "
            f"choose by {' or '.join(sorted(keys))}."
        )
    selection: dict[str, Any] = {
        "schema": 1,
        "winner": winner["number"],
        "architecture": winner["architecture"],
        "variant": winner["variant"],
        "run": winner["run"],
        "head": winner.get("head", ""),
        "by": OBJECTIVES[key],
        "value": winner["value"],
        "standard_error": winner["error"],
        "labels_used": OBJECTIVES[key] == "validation",
        "valid": winner["valid"],
        **_reason(winner, candidates, key),
        "seeds": winner.get("seeds", []),
        "pareto": [],
        "bundle": "",
    }
    if selection["seeds"]:
        selection["reason"] += f" Its best run is chosen: {winner['run'].rpartition('/')[2]}."
        selection["reason"] += _overlooked(rows, candidates)
    if cost := content.get("cost"):
        selection["pareto"] = pareto(rows)
        selection["reason"] += _front(rows, selection["pareto"], key, cost)
    if not selection["valid"]:
        selection["reason"] += f" But {DISTRUST}."
    if winner.get("removed"):
        selection["reason"] += " But its checkpoints were removed (--keep-bytes)."
    if publish:
        selection["registry"] = publish
        selection["bundle"] = _published(
            str(winner["run"]), publish, head=str(winner.get("head", ""))
        )
        selection["reason"] += f" Published as {selection['bundle']} in {publish}."
    store = open_store(sweep_uri)
    store.put(SELECTION, json.dumps(selection, indent=1).encode())
    content["selection"] = selection
    store.put(SWEEP, json.dumps(content, indent=1).encode())
    return selection


def _figure(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Give the figure of the checkpoint that the trial would ship, and its standard error."""
    report = row["figures"] if "figures" in row else _chosen_report(RunFolder(str(row["run"])))
    valid = key != "val/aucp" or trusted(report)
    return {"value": report.get(key), "error": report.get(f"{key}_error"), "valid": valid}


def _chosen_report(run: RunFolder) -> Mapping[str, Any]:
    chosen = run.best()
    return next((report for report in run.metrics() if report["images"] == chosen), {})


def _finalists(
    rows: Sequence[Mapping[str, Any]], further: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Give the trials that were trained with further seeds: `value` is the median of `seeds`.

    Its error joins that of the median, from the spread over seeds (pooled over the finalists, for
    each has few), and that of the images, which all of these runs share and no seed averages away.
    `run` is the one with the highest figure.
    """
    runs: dict[int, list[Mapping[str, Any]]] = {}
    for row in (*rows, *further):  # a trial comes before its further runs
        if row["state"] == "complete" and row["value"] is not None:
            runs.setdefault(row["number"], []).append(row)
    runs = {number: some for number, some in runs.items() if len(some) > 1}
    seeds = {number: [run["value"] for run in some] for number, some in runs.items()}
    freedom = sum(len(values) - 1 for values in seeds.values())
    squares = sum(statistics.variance(v) * (len(v) - 1) for v in seeds.values())
    judged = []
    for number, some in runs.items():
        errors = [run["error"] for run in some]
        of_seeds = _OF_MEDIAN * math.sqrt(squares / freedom / len(some))
        shipped = max(some, key=lambda run: float(run["value"]))
        judged.append({
            **some[0],
            "run": shipped["run"],
            "valid": shipped["valid"],
            "value": statistics.median(seeds[number]),
            "error": None if None in errors else math.hypot(of_seeds, statistics.mean(errors)),
            "seeds": seeds[number],
        })  # fmt: skip
    return judged


def _overlooked(rows: Sequence[Mapping[str, Any]], finalists: Sequence[Mapping[str, Any]]) -> str:
    """Name the best trial where it is no finalist: it came later, or its further runs failed."""
    highest = best(rows)
    if highest is None or highest["number"] in {row["number"] for row in finalists}:
        return ""
    return (
        f" Trial {highest['number']} ({highest['value']:.4f}) was left out: it has no run with "
        "another seed."
    )


def _front(rows: Sequence[Mapping[str, Any]], numbers: Sequence[int], key: str, cost: str) -> str:
    """Name the trials between which only taste decides."""
    by_number = {row["number"]: row for row in rows}
    named = [f"{n} ({by_number[n]['value']:.4f}, {by_number[n]['cost']:.4g} {COSTS[cost]})"
             for n in numbers]  # fmt: skip
    return f" Pareto front of {key} and {cost}: trials {', '.join(named)}."


def _reason(
    winner: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], key: str
) -> dict[str, Any]:
    """Say how far the runner-up is and whether that can be chance.

    The two figures come from the same images, and agree more than independent ones would: the
    error of the difference is at most the root of the summed squares, which is taken for it.
    """
    second = best([row for row in rows if row["number"] != winner["number"]])
    seeds = f"median {key} of {len(winner['seeds'])} seeds" if winner.get("seeds") else key
    said = f"trial {winner['number']} ({winner['architecture']}) has the highest {seeds}, "
    if second is None:
        return {
            "reason": f"{said}{winner['value']:.4f}; no other trial has one.",
            "runner_up": None,
            "distinguishable": None,
        }
    difference = winner["value"] - second["value"]
    runner_up = {"number": second["number"], "architecture": second["architecture"],
                 "value": second["value"], "difference": difference}  # fmt: skip
    errors = (winner["error"], second["error"])
    said += (
        f"{winner['value']:.4f}; the runner-up, trial {second['number']} "
        f"({second['architecture']}), is {difference:.4f} below"
    )
    if None in errors:
        return {"reason": f"{said}.", "runner_up": runner_up, "distinguishable": None}
    error = math.hypot(*errors)
    sure = difference > _SURE * error
    verdict = "more than chance explains" if sure else "which is not distinguishable from chance"
    return {
        "reason": f"{said}, {verdict} (standard error of the difference: {error:.4f} at most).",
        "runner_up": {**runner_up, "standard_error": error},
        "distinguishable": sure,
    }


def _published(run: str, registry: str, *, head: str) -> str:
    with tempfile.TemporaryDirectory(prefix="gan-ray-select-") as folder:
        bundle = export(run, Path(folder) / "bundle", head=head)
        return publish_bundle(bundle, registry, version=NEXT)
