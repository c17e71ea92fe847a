"""Start a training: here, or on a Ray cluster through Ray Train."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from gan_ray import names
from gan_ray.cluster import connect, environment
from gan_ray.config import Experiment, TrainConfig, to_dict
from gan_ray.errors import ClusterError, ConfigError, GanRayError, StorageError
from gan_ray.experiment import with_absolute_paths
from gan_ray.storage.arrow import arrow_filesystem
from gan_ray.training.failures import out_of_memory, reason
from gan_ray.training.preflight import preflight
from gan_ray.training.run import RunFolder
from gan_ray.training.session import run_session

Progress = Callable[[dict[str, Any]], None]


def train(
    experiment: Experiment[Any],
    out: str | Path,
    *,
    local: bool = False,
    fresh: bool = False,
    progress: Progress = lambda row: None,
    say: Callable[[str], None] = lambda text: None,
) -> RunFolder:
    """Train into the run folder `out`, going on from what is already there.

    `local` runs the loop in this process without Ray, equal bit for bit to one worker under Ray.
    Under Ray a failed worker is replaced up to `train.max_failures` times and training goes on from
    the newest complete checkpoint. `progress` sees each report's row, `say` what
    the user should know before it starts.

    Raises:
        ConfigError, DataError: found before any worker is asked for where possible.
        ClusterError: workers kept failing, or the cluster has no room for them.
        OutOfMemoryError: of a worker's device, or of a node.
    """
    experiment = with_absolute_paths(experiment)  # workers run in other directories
    device = _local_device(experiment) if local else ""
    for warning in preflight(experiment):
        say(f"warning: {warning}")
    run = RunFolder(out)
    run.claim(experiment, fresh=fresh)
    if local:
        run_session(experiment, run, device=device, on_report=lambda row, written: progress(row))
        return run
    connect()
    with _followed(run, progress):
        _train_on_cluster(experiment, run)
    return run


def _local_device(experiment: Experiment[Any]) -> str:
    train = experiment.train
    if train.workers > 1:
        raise ConfigError(
            f"--local runs one process, but train.workers is {train.workers}: leave --local out, "
            "or set --train.workers 1."
        )
    if train.use_gpu and not torch.cuda.is_available():
        raise ConfigError(
            "train.use_gpu is set, but torch sees no GPU here: leave --train.use-gpu out, or "
            "install a CUDA build of torch."
        )
    return "cuda" if train.use_gpu else "cpu"


@contextmanager
def _followed(run: RunFolder, progress: Progress, seconds: float = 2.0) -> Iterator[None]:
    """Tell `progress` of each new row of the run folder: workers may be on other machines."""
    told, done = len(run.metrics()), threading.Event()

    def tell() -> None:
        nonlocal told
        rows = run.metrics()
        for row in rows[told:]:
            progress(row)
        told = max(told, len(rows))

    def follow() -> None:
        while not done.wait(seconds):
            with suppress(StorageError):  # a line of progress less; what matters is told below
                tell()

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        tell()


def _train_on_cluster(experiment: Experiment[Any], run: RunFolder) -> None:
    from ray.exceptions import OutOfMemoryError
    from ray.train import ControllerError, TrainingFailedError

    _fits(experiment)
    left = experiment.train.max_failures
    while True:
        # Ray's notes of an earlier attempt: resuming is ours, from the newest complete checkpoint.
        run.store.delete("checkpoint_manager_snapshot.json")
        try:
            error = _interruptible(_trainer(experiment, run).fit).return_value
            break
        except (TrainingFailedError, OutOfMemoryError) as failure:
            full = out_of_memory(failure)
            if full is not None:
                raise full from failure
            # Ray gives up at once where a node is lost while the workers meet: we do not.
            if not isinstance(failure, ControllerError) or not left:
                raise ClusterError(
                    f"training failed {experiment.train.max_failures + 1} times, at last: "
                    f"{reason(failure)} What was trained is kept; the same command goes on."
                ) from failure
            left -= 1
    if error is not None:
        raise error


def _trainer(experiment: Experiment[Any], run: RunFolder) -> Any:
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from gan_ray.training.meeting import Meeting
    from gan_ray.training.worker import train_worker

    train, key = experiment.train, names.secret()

    def worker(config: dict[str, Any]) -> GanRayError | None:
        names.use(key)
        return train_worker(config)

    filesystem, root = arrow_filesystem(run.uri)
    parent, _, name = root.rpartition("/")
    elastic = 0 < train.min_workers < train.workers
    return TorchTrainer(
        worker,
        train_loop_config={"experiment": to_dict(experiment), "run": run.uri},
        torch_config=Meeting(),
        scaling_config=ScalingConfig(
            num_workers=(train.min_workers, train.workers) if elastic else train.workers,
            use_gpu=train.use_gpu,
            resources_per_worker=needs_of_one(train),
            placement_strategy=train.placement.upper(),
        ),
        run_config=RunConfig(
            # Ray's folder is the run folder: it takes our checkpoints only from below its own.
            name=name,
            storage_path=parent,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=train.max_failures),
            worker_runtime_env={"env_vars": environment()},
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )


def _interruptible(work: Callable[[], Any]) -> Any:
    """Call `work` so that Ctrl-C raises KeyboardInterrupt here, as everywhere else.

    In the main thread Ray Train puts a handler of its own in place, which ends the process with 1.
    In another thread it cannot; the training then ends with this process.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    box: Future[Any] = Future()

    def run() -> None:
        try:
            box.set_result(work())
        except BaseException as error:  # handed over, whatever it is
            box.set_exception(error)

    threading.Thread(target=run, name="train", daemon=True).start()
    return box.result()


def needs_of_one(train: TrainConfig) -> dict[str, float]:
    """Give what one worker of a training takes, as Ray counts it."""
    return {"CPU": 1.0} | ({"GPU": train.gpus_per_worker} if train.use_gpu else {})


def _fits(experiment: Experiment[Any]) -> None:
    """Refuse at once what the cluster can never place: Ray would wait for ever."""
    import ray

    train = experiment.train
    have = ray.cluster_resources()
    fewest = train.min_workers or train.workers
    for kind, amount in needs_of_one(train).items():
        if have.get(kind, 0.0) < fewest * amount:
            raise ClusterError(
                f"{fewest} workers need {fewest * amount:g} {kind}, the cluster has "
                f"{have.get(kind, 0.0):g}. Lower --train.workers or add nodes."
            )
