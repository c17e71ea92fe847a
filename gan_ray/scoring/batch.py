"""A whole directory or prefix: every image scored exactly once, by actors on a Ray cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Container, Generator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from gan_ray.artifacts.bundle import read_verified, refuse_conditional
from gan_ray.artifacts.manifest import MANIFEST
from gan_ray.cluster import connect, environment
from gan_ray.data.suffixes import IMAGE_SUFFIXES
from gan_ray.errors import CheckFailed, ClusterError, ConfigError, GanRayError
from gan_ray.names import are_shown, key_name, secret
from gan_ray.scoring.calibration import calibration_warnings
from gan_ray.scoring.ledger import Job, Plan, Planned, done, failures, read_rows, settle
from gan_ray.scoring.pace import at_once
from gan_ray.scoring.shards import SHOWN_ERRORS, Shard, ShardScorer
from gan_ray.storage import open_store
from gan_ray.storage.uris import parse

__all__ = ["IMAGE_SUFFIXES", "Progress", "read_rows", "score_prefix"]

Progress = Callable[[dict[str, Any]], None]

_SHARD = 256  # objects of a shard; fewer of a system that searches (`pace`)
_LIVES = 3  # times a shard may lose its worker before the job gives up
_ASKED_EVERY = 1.0  # seconds after which a job asks again whether to stop


def score_prefix(
    bundle: str | Path,
    source: str,
    sink: str,
    *,
    workers: int = 2,
    glob: str = "",
    maps: bool = False,
    max_errors: float = 1.0,
    stratum: str = "",
    shard_size: int | None = None,
    progress: Progress = lambda figures: None,
    stop: Callable[[], bool] = lambda: False,
    image_suffixes: Sequence[str] = IMAGE_SUFFIXES,
) -> dict[str, Any]:
    """Score the images below `source` into `sink`, and give a summary; the same call resumes.

    Rows come as Parquet, one part per shard (`read_rows` gives them all); with `maps`, anomaly maps
    as float16 [S, S] in `maps/ID.npy`. Ids of objects are pseudonyms (`ledger.object_id`); their
    addresses are written only where names are shown (see `names`). `glob` narrows what is scored to
    keys that fit it (`suffixes.matches`). `stratum` names the scanner, site, ... that all images
    are of; one without a threshold of its own is judged by the common one. An image that cannot be
    read, or that changed or went away after the listing, becomes a row with `error`; when they are
    more than the share `max_errors` of all objects, the job fails. A store that cannot be reached
    stops the job. A worker that dies is replaced, and loses at most the shard it was at; with 0
    workers this process scores, without Ray. A shard has `shard_size` objects; left out, 256, and
    fewer for a system that searches.

    `progress` sees `objects` (done), `total`, `failed` (of them), `seconds` and `rate_per_s` (of
    this call), `eta_s` (None before the first shard ends) and `errors` (the first of this call)
    before the first shard and after each. `stop` is asked every second: True ends the call, with
    what is done and the number of objects that are `left`.

    Raises:
        ArtifactError: the bundle is not as its manifest says.
        CheckFailed: more objects failed than `max_errors` allows.
        ConfigError: the source is a file, the sink holds another job, a setting cannot work, or
            the bundle needs the class of each image.
        DataError: there is no image in the source.
        StorageError: source or sink cannot be used.
        ClusterError: the cluster has no room, or a shard kills its workers.
    """
    started = time.perf_counter()
    if workers < 0 or (shard_size is not None and shard_size < 1):
        raise ConfigError(
            f"workers must be 0 (this process) or more and shard_size 1 or more, but they are "
            f"{workers} and {shard_size}."
        )
    if not 0 <= max_errors <= 1:
        raise ConfigError(f"max_errors is a share of the objects, in [0, 1], but is {max_errors}.")
    place = parse(source)
    if place.scheme == "file" and Path(place.path).is_file():
        raise ConfigError(
            f"'{source}' is a file: a folder or prefix of images is needed. Give the folder, or "
            "unpack the archive and give its folder."
        )
    manifest, contents = read_verified(Path(bundle))
    refuse_conditional(manifest, Path(bundle))
    images, store = open_store(source, private=True), open_store(sink)
    job = Job(
        source=images.uri,
        model=manifest.name,
        version=manifest.version,
        manifest_digest=manifest.digest,
        preprocessing=manifest.preprocessing,
        maps=maps,
        pseudonym_key=key_name(),
        with_names=are_shown(),
        shard_size=shard_size or at_once(_SHARD, manifest.passes_per_image),
        suffixes=tuple(suffix.lower() for suffix in image_suffixes),
        glob=glob,
        stratum=stratum,
    )
    plan = settle(images, store, job)
    finished = done(store)
    tally = _Tally(plan, finished, failures(store, sorted(finished)), started)

    def tell() -> None:
        progress(tally.figures())
        if tally.failed > max_errors * plan.objects:
            raise CheckFailed(
                f"{tally.failed:,} of {plan.objects:,} objects could not be scored, but max_errors "
                f"allows {max_errors:.3g} of them. Their rows in {store.uri} say why; the same "
                "job with a larger max_errors goes on."
            )

    tell()
    if len(finished) < plan.shards:
        files = {**contents, MANIFEST: manifest.to_json()}
        spread = _over_actors if workers else _here
        with closing(spread(files, plan, finished, store.uri, workers)) as ended:
            for shard in ended:
                if shard is not None:
                    tally.add(shard)
                    tell()
                if stop():
                    break
    return {
        "sink": store.uri,
        "model": manifest.reference,
        "passed_over": plan.passed_over,
        **tally.summary(),
        "warnings": calibration_warnings(manifest.calibration, stratum),
    }


class _Tally:
    """How far a job is: of all its calls in numbers, of this one in time."""

    def __init__(self, plan: Plan, finished: Collection[int], failed: int, started: float) -> None:
        self._total, self._started = plan.objects, started
        self._resumed = sum(plan.size(shard) for shard in finished)
        self._failed_before, self._scored, self._failed = failed, 0, 0
        self._errors: tuple[dict[str, str], ...] = ()
        self._began = time.perf_counter()

    @property
    def failed(self) -> int:
        """Objects that could not be scored, in all calls."""
        return self._failed_before + self._failed

    def add(self, shard: Shard) -> None:
        """Count a shard that ended."""
        self._scored += shard.scored
        self._failed += shard.failed
        self._errors = (*self._errors, *shard.errors)[:SHOWN_ERRORS]

    def figures(self) -> dict[str, Any]:
        """Give what `progress` of `score_prefix` sees."""
        now, here = time.perf_counter(), self._scored + self._failed
        rate = here / max(now - self._began, 1e-9)
        left = self._total - self._resumed - here
        return {
            "objects": self._resumed + here,
            "total": self._total,
            "failed": self.failed,
            "seconds": now - self._started,
            "rate_per_s": rate,
            "eta_s": left / rate if rate else None,
            "errors": self._errors,
        }

    def summary(self) -> dict[str, Any]:
        """Give what this call did."""
        seconds, here = time.perf_counter() - self._started, self._scored + self._failed
        return {
            "objects": self._total,
            "resumed": self._resumed,
            "scored": self._scored,
            "failed": self._failed,
            "left": self._total - self._resumed - here,
            "errors": list(self._errors),
            "seconds": round(seconds, 3),
            "images_per_second": round(here / seconds, 2),
        }


class _Tasks:
    """The shards that are left. Each worker knows its next one, unless another is free sooner."""

    def __init__(self, plan: Plan, finished: Container[int]) -> None:
        self._waiting = plan.left(finished)
        self._next: dict[int, tuple[int, list[Planned]]] = {}

    def give(self, worker: int) -> tuple[int, list[Planned]] | None:
        """Give a worker a shard, and set its next one aside; None when no shard is left."""
        task = self._next.pop(worker, None) or next(self._waiting, None)
        if task is None and self._next:
            task = self._next.pop(min(self._next))
        for following in islice(self._waiting, 1):
            self._next[worker] = following
        return task

    def following(self, worker: int) -> Sequence[Planned]:
        """Give the objects that a worker should begin with after those that it has."""
        return self._next[worker][1] if worker in self._next else ()


def _here(
    files: Mapping[str, bytes], plan: Plan, finished: Collection[int], sink: str, _workers: int
) -> Generator[Shard | None, None, None]:
    """Score the shards in this process, one after the other."""
    scorer = ShardScorer(files, plan.job, sink)
    tasks = _Tasks(plan, finished)
    while task := tasks.give(0):
        yield scorer.score(*task, tasks.following(0))


def _over_actors(
    files: Mapping[str, bytes], plan: Plan, finished: Collection[int], sink: str, workers: int
) -> Generator[Shard | None, None, None]:
    """Spread the shards over actors; give each as it ends, or None when a while passed without."""
    connect()
    import ray

    left = plan.shards - len(finished)
    count = min(workers, left)
    have = ray.cluster_resources().get("CPU", 0.0)
    if have < count:
        raise ClusterError(
            f"{count} workers need {count} CPUs, the cluster has {have:g}. Lower --workers or add "
            "nodes."
        )
    actor_class = ray.remote(ShardScorer).options(
        num_cpus=1,
        max_restarts=-1,
        max_task_retries=_LIVES,
        runtime_env={"env_vars": environment()},
    )
    shared = ray.put(dict(files))
    actors = [actor_class.remote(shared, plan.job, sink, secret()) for _ in range(count)]
    tasks = _Tasks(plan, finished)
    # An actor gets work once it has shown that it lives: the cluster may have no place for it yet.
    busy: dict[Any, tuple[int, int | None]] = {
        actor.prepare.remote(): (worker, None) for worker, actor in enumerate(actors)
    }
    try:
        while left:
            ready, _ = ray.wait(list(busy), num_returns=1, timeout=_ASKED_EVERY)
            if not ready:
                yield None
                continue
            worker, ended = busy.pop(ready[0])
            result = _result(ready[0], ended)
            if task := tasks.give(worker):
                score = actors[worker].score
                busy[score.remote(*task, tasks.following(worker))] = (worker, task[0])
            if result is not None:
                left -= 1
                yield result
    finally:
        for actor in actors:
            ray.kill(actor)


def _result(reference: Any, shard: int | None) -> Shard | None:
    """Fetch what an actor gave; our own errors come out as they went in."""
    import ray

    try:
        result: Shard | None = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, GanRayError):
            raise error.cause from None
        raise
    except ray.exceptions.RayActorError as error:
        raise ClusterError(
            f"shard {shard} lost its worker {_LIVES + 1} times, last: {error}. Look for an image "
            "that takes too much memory; the same command goes on with what is left."
        ) from error
    return result
