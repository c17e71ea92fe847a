"""Choose a sweep's winner without a test label, say how sure that is, publish its bundle."""

from __future__ import annotations

import json
import math
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
from tune_spaces.record import SWEEP, best, read
from tune_spaces.studies import OBJECTIVES, check_objective

SELECTION = "selection.json"
_SURE = 1.96
"""Standard errors of a difference that are not put down to chance (two-sided, 95 %)."""


def select(sweep_uri: str, *, by: str = "aucp", publish: str = "") -> dict[str, Any]:
    """Choose the trial whose chosen checkpoint has the highest figure; writes `selection.json`.

    `by` is aucp, or validation for a labelled validation split. With `publish` the winner's run is
    exported and put into that registry, as the architecture's newest version.

    Raises:
        ConfigError: `by` is neither, or made of test labels.
        DataError: no sweep there, or no trial with that figure.
        ArtifactError: the winner fails the gate of `export`.
    """
    keys: dict[str, str] = {short: key for key, short in OBJECTIVES.items()}
    key = keys.get(by, by)
    check_objective(key)
    content = read(sweep_uri)
    rows = [{**row, **_figure(row, key)} for row in content["trials"]]
    winner = best(rows)
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
        **_reason(winner, rows, key),
        "bundle": "",
    }
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


def _reason(
    winner: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], key: str
) -> dict[str, Any]:
    """Say how far the runner-up is and whether that can be chance.

    The two figures come from the same images, and agree more than independent ones would: the
    error of the difference is at most the root of the summed squares, which is taken for it.
    """
    second = best([row for row in rows if row["number"] != winner["number"]])
    said = f"trial {winner['number']} ({winner['architecture']}) has the highest {key}, "
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
