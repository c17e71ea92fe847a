"""What one trial does, in its own process: a training in its own run folder, reported to Tune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ray import tune

from gan_ray import names
from gan_ray.errors import GanRayError
from gan_ray.experiment import parse
from gan_ray.training.launch import train
from gan_ray.training.prometheus import Prometheus
from gan_ray.training.run import RunFolder
from gan_ray.training.session import Written, run_session
from tune_spaces.inference import cost_of
from tune_spaces.settings import with_settings


def run_trial(
    config: dict[str, Any],
    *,
    experiments: dict[str, dict[str, Any]],
    objective: str,
    cost: str = "",
    key: str,
) -> None:
    """Train a system with `config["settings"]` into `config["run"]`, or go on with it there.

    The system is that of `experiments` which `config["system"]` names.

    `config["trained"]` is a finished run that differs in its score alone, where there is one.

    With one worker training runs in this process, with more on Ray Train. Reports carry `images`
    and the objective once a stage can score; the last word is `finished`, with the `cost` where
    one is named. What an earlier process reported is reported again:
    the scheduler may be new, and the last word may not have reached it. A fault of the training
    itself would come again: it is reported as `failed`, with its reason, instead of raised; Tune
    retries what kills the process.
    """
    names.use(key)  # the `names.secret` of the driver
    run = RunFolder(config["run"])

    trained = config.get("trained")

    def report(row: dict[str, Any]) -> None:
        # What is judged anew saves nothing by a stop, and is no measure for those who train.
        if objective in row and trained is None:
            tune.report({"images": row["images"], objective: row[objective]})

    try:
        settings = with_settings(parse(experiments[config["system"]]), config["settings"])
        cuda = settings.train.use_gpu and torch.cuda.is_available()
        device = torch.device("cuda" if cuda else "cpu")
        if settings.train.workers > 1:
            for row in run.metrics():
                report(row)
            train(settings, run.uri, progress=report)
        else:
            run.claim(settings)
            figures = Prometheus(settings, run)

            def on_report(row: dict[str, Any], written: Written | None) -> None:
                figures.show(row, written, device)
                report(row)

            run_session(
                settings,
                run,
                device=device,
                on_report=on_report,
                on_resume=report,
                trained=RunFolder(trained) if trained else None,
            )
        last = {"finished": True, "cost": cost_of(settings, cost, device) if cost else None}
    except GanRayError as error:
        tune.report({"failed": f"{type(error).__name__}: {error}"})
    except Exception as error:
        run.store.put("failed.txt", names.trace(error).encode())
        tune.report({"failed": f"{names.why(error)} (see failed.txt in {run.uri})"})
    else:
        tune.report(last)


def outcome(
    run: RunFolder,
    rows: Sequence[Mapping[str, Any]],
    objective: str,
    result: Mapping[str, Any] | None,
    error: bool,
) -> dict[str, Any]:
    """Give what became of a run, by its last report and what lies in its folder.

    `rows` are its `metrics`, which are fetched once where they lie in a bucket.

    `state` (complete, pruned or failed), `reason` (of a failure), `value` (the objective of the
    checkpoint that it would ship, None without one), `cost` (None where none is measured),
    `images`, `seconds` of training, `look_seconds` of judging it. `error` says that the process
    died.
    """
    result, chosen = result or {}, run.best()
    figures = [row[objective] for row in rows if row["images"] == chosen and objective in row]
    reason = result.get("failed", "")
    if error and not reason:
        reason = "its process died (killed, out of memory, or its node was lost), repeatedly"
    elif not figures and not reason:
        reason = f"no report has a finite {objective}"
    return {
        "state": "failed" if reason else "complete" if result.get("finished") else "pruned",
        "reason": reason,
        "value": figures[0] if figures else None,
        "cost": result.get("cost"),
        "images": rows[-1]["images"] if rows else 0,
        "seconds": round(sum(row["seconds"] for row in rows), 3),
        "look_seconds": round(sum(row.get("look_seconds", 0.0) for row in rows), 3),
    }
