"""Search the settings of one or several architectures with Ray Tune and Optuna.

    OUT/sweep.json        the trials, updated as they start and end
    OUT/selection.json    the winner, chosen without a test label
    OUT/sweep.html        the same as a page, with figures
    OUT/studies.journal   the Optuna studies (`optuna-dashboard` opens it)
    OUT/trials/<key>/     a run folder for each trial, and each further run of a finalist
    OUT/stages/           stages that trials share (`gan_ray.training.reuse`)
    OUT/ray/              Tune's own notes; not read again

Architectures are searched one after the other, each in a study of its own: in one that branches
over architectures the better one's values decide what counts as good, and as worth going on with,
in the other. The study `architecture` is for that: it finds the system, not the best of each.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from gan_ray.cluster import connect
from gan_ray.config import Experiment, TrainConfig
from gan_ray.data.sources import load_training
from gan_ray.detector import Stage
from gan_ray.errors import ConfigError
from gan_ray.experiment import build_detector, with_absolute_paths
from gan_ray.ranges import Value
from gan_ray.storage.store import open_store
from gan_ray.training.loop import budgets
from gan_ray.training.validation import Validation
from tune_spaces.derive import Method, Narrowing
from tune_spaces.halving import REDUCTION, milestones
from tune_spaces.objectives import AUTO, OBJECTIVES, Objective, prepared, read_objective, settled
from tune_spaces.overview import overview
from tune_spaces.plan import Plan, Search, searches
from tune_spaces.record import Record, read
from tune_spaces.samplers import check_method, given_points
from tune_spaces.studies import plans
from tune_spaces.tuning import run_trainings, stops_cleanly
from tune_spaces.warm_start import check_earlier, fitting
from tune_spaces.watch import Progress, Watch

if TYPE_CHECKING:
    from tune_spaces.finalists import FurtherRun
    from tune_spaces.search import StudySearch

_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Stages that cannot score yet, and the last word of a trial, have no objective.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
}


def sweep(
    base: Sequence[Experiment[Any]],
    *,
    study: str = "weights",
    samples: int,
    out: str,
    fixes: Mapping[str, Value] | None = None,
    ranges: Mapping[str, Narrowing] | None = None,
    method: Method = "tpe",
    warm_start: Sequence[str] = (),
    seed: int = 0,
    concurrent: int | None = None,
    objective: str = AUTO,
    finalists: int = 0,
    finalist_seeds: int = 2,
    storage: str = "",
    keep_bytes: int | None = None,
    reuse: bool = True,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Run `samples` trials of each study, or all of a smaller grid; give what `sweep.json` holds.

    There is a study of each experiment's architecture, and a single one of all if it is called
    `architecture`. Its first trials have the settings of the experiments; its sampler knows the
    trials of the sweeps in `warm_start`, as far as they fit. `say` is told all that before it
    begins, which costs a few seconds of timing; `dry_run` ends there, needs no `out` and gives
    nothing.

    Called again with the same `out`, a sweep goes on where it was, a trial from its newest
    checkpoint. `progress` sees the row of each trial that ends. `concurrent` trials run at a time
    at most, by default as many as the cluster has room for. A cluster without room for one is
    waited for, ten minutes at most, and `say` is told; one that was started by this process has
    what it has. With `reuse`, stages that trials have in common are trained once, and TPE draws
    trials that have some.

    Studies are kept in the database at `storage`, an address of SQLAlchemy, or in a journal in
    `out`. Checkpoints of finished trials that are not among the best go, the worst first, while all
    take more than `keep_bytes`.

    `objective` is a figure to raise, and a cost to lower after a comma (see `objectives`); with a
    cost no trial is stopped early. The best `finalists` are trained again with `finalist_seeds`
    further seeds each, and the winner is the one of the highest median.

    Raises:
        ConfigError: the study, a key, a range, a grid or the objective cannot be; the data lack
            what the objective is made of; or `out` holds another sweep.
        DataError: no sweep where one is to be started from.
        ClusterError: the cluster has no room for a single trial.
        StorageError: `out` or `storage` cannot be read or written; the same call goes on.
    """
    aim = read_objective(objective)
    check_method(method)
    if samples < 1:
        raise ConfigError(f"a sweep needs 1 sample of each study or more, not {samples}.")
    shared = f"{open_store(out).uri}/stages" if reuse and out else ""
    wanted = plans([with_absolute_paths(one) for one in base], study, fixes or {}, ranges or {})
    aim, why = settled(aim, [plan.experiment.data for plan in wanted])
    wanted = [
        dataclasses.replace(plan, experiment=_sharing(prepared(plan.experiment, aim), shared))
        for plan in wanted
    ]
    searched = searches(wanted, study)
    points = {plan.name: given_points(method, plan, samples) for plan in searched}
    earlier = _earlier(warm_start, open_store(out).uri if out else "", searched, aim.figure)
    looked = _looked_at(wanted)
    counts = {name: len(grid) if method == "grid" else samples for name, grid in points.items()}
    if say is not None:
        say(f"study {study}")
        say(f"objective: {aim}, {why}{'; no trial is stopped early' if aim.cost else ''}")
        for plan in searched:
            say(
                overview(
                    plan,
                    method=method,
                    samples=counts[plan.name],
                    earlier=len(earlier[plan.name]),
                    looked=looked,
                )
            )
    if dry_run:
        return {}
    record = Record(out, storage)
    record.claim(study, aim.figure, seed, counts, searched, method=method, cost=aim.cost)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from tune_spaces.finalists import further_runs
    from tune_spaces.search import StudySearch

    say = say or (lambda text: None)
    watch = Watch(record, keep_bytes=keep_bytes, progress=progress, say=say)
    with record.answering():
        record.write()
        connect()
        for plan in searched:
            first, last = _first_and_last(plan)
            search = StudySearch(
                plan,
                record,
                objective=aim.figure,
                cost=aim.cost,
                seed=seed,
                ended=watch.ended,
                method=method,
                points=points[plan.name],
                earlier=earlier[plan.name],
                rungs=milestones(first, last),
            )
            if count := search.remaining(counts[plan.name]):
                _search(plan, search, record, aim, count, concurrent, say)
        for again in further_runs(record, wanted, finalists, finalist_seeds):
            _run_again(*again, record, aim.figure, concurrent, progress, say)
        from tune_spaces.select import select

        if record.content()["best"] is not None:
            record.selection = select(record.uri, by=OBJECTIVES[aim.figure])
        return watch.finished()


def _sharing(experiment: Experiment[Any], shared: str) -> Experiment[Any]:
    """Share stages in `shared` where the experiment names no place for them."""
    train = dataclasses.replace(experiment.train, stages=experiment.train.stages or shared)
    return with_absolute_paths(dataclasses.replace(experiment, train=train))


def _looked_at(wanted: Sequence[Plan]) -> dict[str, int]:
    """Give the images of a look, by system; reads each set of data once.

    Raises:
        ConfigError: the data lack what the objective is made of.
        DataError: the data cannot be used.
    """
    images: dict[str, int] = {}
    for plan in wanted:
        data = plan.experiment.data
        if repr(data) not in images:
            images[repr(data)] = Validation(plan.experiment, load_training(data)).images
    return {plan.name: images[repr(plan.experiment.data)] for plan in wanted}


def _earlier(
    uris: Sequence[str], own: str, searched: Sequence[Search], objective: str
) -> dict[str, list[FrozenTrial]]:
    """Give the trials of earlier sweeps that fit, by the name of the search."""
    found: dict[str, list[FrozenTrial]] = {plan.name: [] for plan in searched}
    for uri in dict.fromkeys(open_store(uri).uri for uri in uris):
        if uri == own:
            raise ConfigError(
                f"--warm-start {uri} is the sweep's own folder, whose trials it knows: name another"
                " sweep's, or leave it out."
            )
        content = read(uri)
        check_earlier(uri, content, objective)
        for plan in searched:
            found[plan.name] += fitting(plan, uri, content)
    return found


def _search(
    plan: Search,
    search: StudySearch,
    record: Record,
    aim: Objective,
    count: int,
    concurrent: int | None,
    say: Callable[[str], None],
) -> None:
    from ray.tune.schedulers import ASHAScheduler

    from tune_spaces.search import history

    train = plan.plans[0].experiment.train
    first, last = _first_and_last(plan)
    scheduler = ASHAScheduler(
        time_attr="images",
        metric=aim.figure,
        mode="max",
        grace_period=first,
        max_t=max(first, last),
        reduction_factor=REDUCTION,
        stop_last_trials=False,
    )
    for done in search.finished:  # rungs know the trials of an earlier process
        stand_in = SimpleNamespace(trial_id=f"{plan.name}-{done.number}")
        scheduler.on_trial_add(None, stand_in)
        for images, value in history(done):
            scheduler.on_trial_result(None, stand_in, {"images": images, aim.figure: value})
    stops = not aim.cost and stops_cleanly(train)
    run_trainings(plan, record, search, count, scheduler if stops else None, aim, concurrent, say)
    if any(row["state"] == "running" for row in record.content()["trials"]):
        raise KeyboardInterrupt  # Tune ends quietly on Ctrl-C


def _run_again(
    plan: Plan,
    runs: Sequence[FurtherRun],
    record: Record,
    objective: str,
    concurrent: int | None,
    progress: Progress | None,
    say: Callable[[str], None],
) -> None:
    from tune_spaces.finalists import FinalistSearch

    def ended(row: dict[str, Any]) -> None:
        record.write()
        if progress is not None:
            progress(row)

    say(f"finalists: {plan.name}, runs with other seeds: {len(runs)}")
    search = FinalistSearch(record, runs, objective=objective, ended=ended)
    run_trainings(plan, record, search, len(runs), None, Objective(objective), concurrent, say)
    if search.unended:
        raise KeyboardInterrupt


def _first_and_last(plan: Search) -> tuple[int, int]:
    """Give the `rungs` of a search; of compared systems, those at which all can be judged."""
    each = [rungs(build_detector(p.experiment).stages(), p.experiment.train) for p in plan.plans]
    return max(first for first, _ in each), min(last for _, last in each)


def rungs(stages: tuple[Stage, ...], train: TrainConfig) -> tuple[int, int]:
    """Give the images at which a trial can first be stopped, and the last of its training.

    The first is a quarter of all images after those on which it cannot score, but no later than
    half-way through the rest: early values say little, and where most is spent already, a stop
    saves little.
    """
    blind = 0
    images = budgets(stages, train)
    for stage, budget in zip(stages, images, strict=True):
        if stage.scores:
            break
        blind += budget
    whole = sum(images)
    # One image short of the end: who has come that far is complete.
    return blind + max(1, min(whole // 4, (whole - blind) // 2)), whole - 1
