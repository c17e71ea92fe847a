"""Train, export and evaluate one system after the other at a stated budget; resumable.

What is done is kept in OUT and not done again, so that a table grows over several calls.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from gan_ray.artifacts.export import export
from gan_ray.config import DataConfig, merge
from gan_ray.experiment import make
from gan_ray.scoring.evaluate import evaluate
from gan_ray.training.launch import train


@dataclass(frozen=True)
class Case:
    """A system as it is trained for a table."""

    label: str
    architecture: str
    variant: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the experiment's nested dict; `train.images` is the budget."""
    checkpoints: tuple[Literal["last", "best"], ...] = ("last", "best")
    baselines: bool = True
    """Whether the trivial detectors and the untrained networks stand beside it."""
    test: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the data settings for the evaluation, such as a subset's root."""


def run_case(case: Case, data: DataConfig, changes: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Give the `evaluation.json` of a case, its models named after the checkpoints."""
    done = out / "evaluation" / "evaluation.json"
    if not done.exists():
        settings = merge({"data": asdict(data), "train": {"samples": 8}}, changes)
        experiment = make(
            case.architecture, variant=case.variant, changes=merge(settings, case.changes)
        )
        began = time.process_time()
        train(experiment, out / "run", local=True)
        _note(out / "cpu_seconds.json", time.process_time() - began)
        label = case.label.replace(" ", "-")
        bundles = [out / name for name in case.checkpoints]
        for name, bundle in zip(case.checkpoints, bundles, strict=True):
            if not bundle.exists():
                export(out / "run", bundle, checkpoint=name, name=f"{label}-{name}")
        evaluate(bundles, replace(data, **case.test), out / "evaluation", baselines=case.baselines)
    evaluation: dict[str, Any] = json.loads(done.read_text())
    evaluation["cpu_seconds"] = json.loads((out / "cpu_seconds.json").read_text())
    return evaluation


def _note(path: Path, seconds: float) -> None:
    before = json.loads(path.read_text()) if path.exists() else 0.0
    path.write_text(json.dumps(round(before + seconds, 1)))


def line(label: str, figures: Mapping[str, Any], metrics: Sequence[str], budget: str) -> str:
    """Give a row of a Markdown table; metrics that are absent leave a dash."""
    cells = [
        "{value:.3f} ({low:.3f}-{high:.3f})".format(**figures[name]) if name in figures else "-"
        for name in metrics
    ]
    return f"| {label} | {budget} | {' | '.join(cells)} |"
