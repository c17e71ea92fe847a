"""What it costs to be as good as a random search: TPE, ASHA and shared stages against it.

`python -m benchmarks.sweep_efficiency [SEEDS]`, 3 unless told: for each seed the study `full` of a
narrow f-AnoGAN on the digits is searched twice, one trial at a time on one thread. First by 24
random draws, each trained to its end; then by a sweep as users start it, which gets more samples
until one of its checkpoints has the best AUCp of the random search. Compute is counted as images
that went through training, and as seconds of training and looking; what was taken over from
another trial costs nothing.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler

from gan_ray.config import Experiment
from gan_ray.experiment import make
from gan_ray.training.run import RunFolder
from gan_ray.training.session import run_session
from tune_spaces.settings import with_settings
from tune_spaces.studies import plans
from tune_spaces.sweep import sweep

TRIALS = 24
MOST = 96
"""Trials of the sweep after which it is given up."""
IMAGES = 1_600
OBJECTIVE = "val/aucp"
FIXES = {"model.width": 4}

Cost = tuple[int, float, float]
"""Images, seconds, and the best value so far."""


def settings(seed: int) -> Experiment[Any]:
    digits = {"source": "digits", "normal_class": seed % 10, "image_size": 16, "holdout": 0.4}
    train = {"images": IMAGES, "batch_size": 16, "samples": 0, "select": "aucp"}
    changes = {"seed": seed, "data": digits, "train": train}
    return make("f-anogan", preset="tiny", changes=changes)


def costs(runs: Iterator[tuple[RunFolder, int]]) -> Iterator[Cost]:
    """Give what all reports up to each one have cost, and the best value among them.

    With each run come the images that it took over; a look at what another trained costs its time.
    """
    images, seconds, best = 0, 0.0, 0.0
    for run, before in runs:
        for row in run.metrics():
            images += max(0, row["images"] - before)
            seconds += row["seconds"] + row.get("look_seconds", 0.0)
            before = max(before, row["images"])
            best = max(best, row.get(OBJECTIVE, 0.0))
            yield images, seconds, best


def random_search(seed: int, out: str, sampler: BaseSampler) -> Iterator[tuple[RunFolder, int]]:
    """Train what `sampler` draws, each trial to its end."""
    plan = plans([settings(seed)], "full", FIXES, {})[0]
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for number in range(TRIALS):
        trial = study.ask()
        run = RunFolder(f"{out}/{number}")
        experiment = with_settings(plan.experiment, plan.space.suggest(trial))
        run.claim(experiment)
        run_session(experiment, run)
        study.tell(trial, RunFolder(run.uri).get_json("selection.json")["value"])
        yield run, 0


def reached(seed: int, out: str, value: float) -> tuple[int, Cost]:
    """Sweep until a checkpoint has `value`; give the trials begun until then and their cost."""
    for samples in range(TRIALS, MOST + 1, TRIALS):
        content = sweep([settings(seed)], study="full", samples=samples, out=out, fixes=FIXES,
                        seed=seed, concurrent=1, objective=OBJECTIVE)  # fmt: skip
        trials = 0

        def runs(rows: list[dict[str, Any]] = content["trials"]) -> Iterator[tuple[RunFolder, int]]:
            nonlocal trials
            for row in rows:
                trials += 1
                yield RunFolder(row["run"]), row["reused_images"]

        for cost in costs(runs()):
            if cost[2] >= value:
                return trials, cost
    return trials, cost


def main(seeds: int) -> None:
    print("| seed | best of random | its images, s | sweep | its images, s | images | seconds |")
    print("|---|---|---|---|---|---|---|")
    ratios: list[tuple[float, float]] = []
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for seed in range(seeds):
        with tempfile.TemporaryDirectory(prefix="gan-ray-efficiency-") as out:
            *_, whole = costs(random_search(seed, f"{out}/random", RandomSampler(seed=seed)))
            trials, cost = reached(seed, f"{out}/sweep", whole[2])
        ratios.append((cost[0] / whole[0], cost[1] / whole[1]))
        there = "there" if cost[2] >= whole[2] else f"only {cost[2]:.4f}"
        random, own = (f"{images:,}, {seconds:.0f}" for images, seconds, _ in (whole, cost))
        print(
            f"| {seed} | {whole[2]:.4f} | {random} | {there} in {trials} trials | {own} "
            f"| {ratios[-1][0]:.2f} | {ratios[-1][1]:.2f} |",
            flush=True,
        )
    for name, column in zip(("images", "seconds"), zip(*ratios, strict=True), strict=True):
        spread = f"{min(column):.2f} to {max(column):.2f}"
        print(f"{name}: median ratio {statistics.median(column):.2f}, {spread} (wanted: 0.33)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
