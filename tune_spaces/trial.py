"""What one trial does, in its own process: a training in its own run folder, reported to Tune."""

from __future__ import annotations

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
from tune_spaces.settings import with_settings


def run_trial(
    config: dict[str, Any], *, experiments: dict[str, dict[str, Any]], objective: str, key: str
) -> None:
    """Train a system with `config["settings"]` into `config["run"]`, or go on with it there.

    The system is that of `experiments` which `config["system"]` names.

    `config["trained"]` is a finished run that differs in its score alone, where there is one.

    With one worker training runs in this process, with more on Ray Train. Reports carry `images`
    and the objective once a stage can score. What an earlier process reported is reported again:
    the scheduler may be new, and the last word may not have reached it. A fault of the training
    itself would come again: it is reported as `failed`, with its reason, instead of raised; Tune
    retries what kills the process.
    """
    names.use(key)  # the `names.secret` of the driver
    run = RunFolder(config["run"])

    def report(row: dict[str, Any]) -> None:
        if objective in row:
            tune.report({"images": row["images"], objective: row[objective]})

    try:
        settings = with_settings(parse(experiments[config["system"]]), config["settings"])
        if settings.train.workers > 1:
            for row in run.metrics():
                report(row)
            train(settings, run.uri, progress=report)
        else:
            run.claim(settings)
            cuda = settings.train.use_gpu and torch.cuda.is_available()
            device, figures = torch.device("cuda" if cuda else "cpu"), Prometheus(settings, run)

            def on_report(row: dict[str, Any], written: Written | None) -> None:
                figures.show(row, written, device)
                report(row)

            trained = config.get("trained")
            run_session(
                settings,
                run,
                device=device,
                on_report=on_report,
                on_resume=report,
                trained=RunFolder(trained) if trained else None,
            )
    except GanRayError as error:
        tune.report({"failed": f"{type(error).__name__}: {error}"})
    except Exception as error:
        run.store.put("failed.txt", names.trace(error).encode())
        tune.report({"failed": f"{names.why(error)} (see failed.txt in {run.uri})"})
    else:
        tune.report({"finished": True})
