"""What Tune runs: trainings that a search hands out, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gan_ray import names
from gan_ray.cluster import patience, wait_for_room
from gan_ray.config import TrainConfig, to_dict
from gan_ray.errors import ClusterError
from gan_ray.storage.arrow import arrow_filesystem
from gan_ray.training.launch import needs_of_one
from tune_spaces.objectives import Objective
from tune_spaces.plan import Search
from tune_spaces.record import Record

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.search import Searcher


def run_trainings(
    plan: Search,
    record: Record,
    search: Searcher,
    count: int,
    scheduler: TrialScheduler | None,
    aim: Objective,
    concurrent: int | None,
    say: Callable[[str], None],
) -> None:
    """Run `count` trainings that the search hands out."""
    from ray import tune

    from tune_spaces.trial import run_trial

    train = plan.plans[0].experiment.train
    alone = train.workers == 1
    filesystem, folder = arrow_filesystem(f"{record.uri}/ray")
    trainable = tune.with_parameters(
        run_trial,
        experiments={p.name: to_dict(p.experiment) for p in plan.plans},
        objective=aim.figure,
        cost=aim.cost,
        key=names.secret(),
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, needs(train)),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=scheduler,
            num_samples=count,
            max_concurrent_trials=room(train, concurrent, say, patience()),
            reuse_actors=alone,
            trial_dirname_creator=lambda trial: f"{plan.name}-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=plan.name,
            storage_path=folder,
            storage_filesystem=filesystem,
            failure_config=tune.FailureConfig(max_failures=train.max_failures),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except tune.TuneError:
        if record.failure is not None:  # Tune makes one text of all that is raised below it
            raise record.failure from None
        raise


def needs(train: TrainConfig) -> dict[str, float]:
    """Resources of the process of a trial: those of its training, or next to nothing.

    With several workers Ray Train takes them itself; a trial that held a processor meanwhile could
    starve its own workers. Tune does not accept nothing.
    """
    if train.workers > 1:
        return {"memory": 1}
    return {"cpu": 1.0} | ({"gpu": train.gpus_per_worker} if train.use_gpu else {})


def room(
    train: TrainConfig, concurrent: int | None, say: Callable[[str], None], seconds: float
) -> int:
    """Trials that find room at the same time, workers and all."""
    worker = needs_of_one(train)
    one = {kind: train.workers * amount for kind, amount in worker.items()}
    have = wait_for_room(worker, train.workers, seconds=seconds, say=say)
    trials = min(int(have.get(kind, 0.0) / amount) for kind, amount in one.items())
    if trials == 0:
        asked = ", ".join(f"{amount:g} {kind}" for kind, amount in one.items())
        found = ", ".join(f"{have.get(kind, 0.0):g} {kind}" for kind in one)
        raise ClusterError(
            f"one trial needs {asked}, the cluster has {found}. Lower --train.workers or "
            "--train.gpus-per-worker, or add nodes."
        )
    return min(trials, concurrent or trials)


def stops_cleanly(train: TrainConfig) -> bool:
    """Tell whether a trial can be stopped early without its workers' room being lost.

    A trial in one process always can. Ray Train frees the workers of a stopped one through Ray's
    state API, which a cluster without dashboard lacks; all trials are trained to the end there.
    """
    if train.workers == 1:
        return True
    import ray
    from ray.util.state import list_nodes
    from ray.util.state.exception import RayStateApiException

    try:
        list_nodes(address=ray.get_runtime_context().gcs_address, limit=1, timeout=10)
    except (RayStateApiException, ConnectionError):
        return False
    return True
