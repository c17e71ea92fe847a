"""A whole directory or prefix: every image scored exactly once, by actors on a Ray cluster."""

from __future__ import annotations

import io
import math
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gan_ray.artifacts.bundle import Bundle, load_bundle, read_verified, refuse_conditional
from gan_ray.artifacts.manifest import MANIFEST
from gan_ray.cluster import connect, environment
from gan_ray.data.suffixes import IMAGE_SUFFIXES
from gan_ray.errors import ClusterError, ConfigError, GanRayError
from gan_ray.names import are_shown, key_name, secret, use
from gan_ray.scoring.calibration import calibration_warnings
from gan_ray.scoring.ledger import Job, Plan, Planned, commit, done, read_rows, settle
from gan_ray.scoring.scorer import FileResult, Scorer
from gan_ray.storage import ObjectUnusable, open_store
from gan_ray.storage.uris import parse

__all__ = ["IMAGE_SUFFIXES", "read_rows", "score_prefix"]

Progress = Callable[[dict[str, Any]], None]

_AT_ONCE = 32  # objects read, decoded and scored together, while as many are read ahead
_THREADS = 16
_LIVES = 3  # times a shard may lose its worker before the job gives up


def score_prefix(
    bundle: str | Path,
    source: str,
    sink: str,
    *,
    workers: int = 2,
    maps: bool = False,
    stratum: str = "",
    shard_size: int = 256,
    progress: Progress = lambda figures: None,
    image_suffixes: Sequence[str] = IMAGE_SUFFIXES,
) -> dict[str, Any]:
    """Score the images below `source` into `sink`, and give a summary; the same call resumes.

    Rows come as Parquet, one part per shard (`read_rows` gives them all); with `maps`, anomaly maps
    as float16 [S, S] in `maps/ID.npy`. Ids of objects are pseudonyms (`ledger.object_id`); their
    addresses are written only where names are shown (see `names`). `stratum` names the scanner,
    site, ... that all images are of; one without a threshold of its own is judged by the common
    one. An image that cannot be read, or that changed or went away after the listing, becomes a row
    with `error`. A store that cannot be reached stops the job. A worker that dies is replaced, and
    loses at most the shard it was at. `progress` sees `objects` (done), `total`, `failed` (in this
    call) and `seconds` after each shard.

    Raises:
        ArtifactError: the bundle is not as its manifest says.
        ConfigError: the source is a file, the sink holds another job, a setting cannot work, or
            the bundle needs the class of each image.
        DataError: there is no image in the source.
        StorageError: source or sink cannot be used.
        ClusterError: the cluster has no room, or a shard kills its workers.
    """
    started = time.perf_counter()
    if workers < 1 or shard_size < 1:
        raise ConfigError(
            f"workers and shard_size must be 1 or more, but are {workers} and {shard_size}."
        )
    place = parse(source)
    if place.scheme == "file" and Path(place.path).is_file():
        raise ConfigError(
            f"'{source}' is a file: a folder or prefix of images is needed. Give the folder, or "
            "unpack the archive and give its folder."
        )
    manifest, contents = read_verified(Path(bundle))
    refuse_conditional(manifest, Path(bundle))
    job = Job(
        source=open_store(source).uri,
        model=manifest.name,
        version=manifest.version,
        manifest_digest=manifest.digest,
        preprocessing=manifest.preprocessing,
        maps=maps,
        pseudonym_key=key_name(),
        with_names=are_shown(),
        shard_size=shard_size,
        suffixes=tuple(suffix.lower() for suffix in image_suffixes),
        stratum=stratum,
    )
    store = open_store(sink)
    plan = settle(store, job)
    finished = done(store)
    remaining = [shard for shard in range(plan.shards) if shard not in finished]
    resumed = sum(len(plan.shard(shard)) for shard in finished)
    scored = failed = 0

    def tell() -> dict[str, Any]:
        figures = {"objects": resumed + scored + failed, "total": len(plan.objects)}
        return {**figures, "failed": failed, "seconds": time.perf_counter() - started}

    progress(tell())
    if remaining:
        files = {**contents, MANIFEST: manifest.to_json()}
        with closing(_score_shards(files, plan, remaining, store.uri, workers)) as ended:
            for good, bad in ended:
                scored, failed = scored + good, failed + bad
                progress(tell())
    seconds = time.perf_counter() - started
    return {
        "sink": store.uri,
        "model": manifest.reference,
        "objects": len(plan.objects),
        "passed_over": plan.passed_over,
        "resumed": resumed,
        "scored": scored,
        "failed": failed,
        "seconds": round(seconds, 3),
        "images_per_second": round((scored + failed) / seconds, 2),
        "warnings": calibration_warnings(manifest.calibration, stratum),
    }


class ShardScorer:
    """What an actor does: it holds the model, scores one shard at a time and commits its rows."""

    def __init__(self, files: Mapping[str, bytes], job: Job, sink: str, key: str = "") -> None:
        """Take the bundle's files by value, so that nodes need no disk in common.

        `key` is the `names.secret` of another process.
        """
        if key:
            use(key)
        self._files, self._job = files, job
        self._source = open_store(job.source, private=True)
        self._sink = open_store(sink)
        self._threads = ThreadPoolExecutor(_THREADS)

    def prepare(self) -> tuple[int, int]:
        """Load the model; says that the actor has a place on the cluster and works."""
        _ = self._model
        return 0, 0

    def score(self, shard: int, objects: Sequence[Planned]) -> tuple[int, int]:
        """Score the objects of a shard and commit them; give how many have a score, how many not.

        Raises:
            StorageError: source or sink cannot be used; nothing was committed.
        """
        bundle, scorer = self._model
        rows: list[dict[str, object]] = []
        for group in self._read_ahead(objects):
            readable = [
                (one, one.key, content)
                for one, content in group
                if one.key is not None and isinstance(content, bytes)
            ]
            results = scorer.score_files([row[1:] for row in readable], maps=self._job.maps)
            by_id = {one.id: result for (one, *_), result in zip(readable, results, strict=True)}
            self._keep_maps(by_id)
            for one, content in group:
                missing = FileResult(one.id, error=str(content))
                rows.append(self._row(one, by_id.get(one.id, missing), bundle))
        commit(self._sink, shard, rows)
        failed = sum(row["error"] is not None for row in rows)
        return len(rows) - failed, failed

    @cached_property
    def _model(self) -> tuple[Bundle, Scorer]:
        with tempfile.TemporaryDirectory() as folder:
            for name, data in self._files.items():
                (Path(folder) / name).write_bytes(data)
            bundle = load_bundle(folder)
        return bundle, Scorer.from_bundle(bundle, batch_size=_AT_ONCE)

    def _read_ahead(
        self, objects: Sequence[Planned]
    ) -> Iterator[list[tuple[Planned, bytes | str]]]:
        """Give objects with their contents, some at a time, while the next ones are being read."""

        def begin(at: int) -> list[tuple[Planned, Future[bytes | str]]]:
            group = objects[at : at + _AT_ONCE]
            return [(one, self._threads.submit(self._read, one)) for one in group]

        reading = begin(0)
        for at in range(_AT_ONCE, len(objects) + _AT_ONCE, _AT_ONCE):
            current, reading = reading, begin(at)
            yield [(one, content.result()) for one, content in current]

    def _read(self, planned: Planned) -> bytes | str:
        if planned.key is None:
            return f"no object #{planned.id} in {self._source.uri}: it went away after the listing."
        try:
            return self._source.get(planned.key, etag=planned.etag)
        except ObjectUnusable as error:  # any other StorageError concerns the whole store
            return str(error)

    def _row(self, planned: Planned, result: FileResult, bundle: Bundle) -> dict[str, object]:
        score, error = result.score, result.error
        if score is not None and not math.isfinite(score):
            score, error = None, f"#{planned.id} has the score {score}: do not trust this model."
        job, calibration = self._job, bundle.calibration if score is not None else None
        judge = calibration and calibration.of(job.stratum)
        scores = np.array([score], np.float64)
        return {
            "id": planned.id,
            "uri": f"{self._source.uri}/{planned.key}" if job.with_names else None,
            "etag": planned.etag,
            "score": score,
            "p_value": judge and float(judge.p_values(scores)[0]),
            "abnormal": judge and bool(judge.abnormal(scores)[0]),
            "threshold": judge and judge.id,
            "error": error,
            "model": job.model,
            "version": job.version,
            "manifest_digest": job.manifest_digest,
            "preprocessing": job.preprocessing,
        }

    def _keep_maps(self, results: Mapping[str, FileResult]) -> None:
        """Write maps before the rows that speak of them; a repetition writes the same again."""

        def write(name: str, result: FileResult) -> None:
            if result.map is not None:
                buffer = io.BytesIO()
                np.save(buffer, result.map.astype(np.float16), allow_pickle=False)
                self._sink.put(f"maps/{name}.npy", buffer.getvalue())

        list(self._threads.map(write, results, results.values()))


def _score_shards(
    files: Mapping[str, bytes], plan: Plan, shards: Sequence[int], sink: str, workers: int
) -> Generator[tuple[int, int], None, None]:
    """Spread the shards over actors; give the figures of each shard as it ends."""
    connect()
    import ray

    count = min(workers, len(shards))
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
    waiting = iter(shards)
    # An actor gets work once it has shown that it lives: the cluster may have no place for it yet.
    busy: dict[Any, tuple[Any, int | None]] = {
        actor.prepare.remote(): (actor, None) for actor in actors
    }
    left = len(shards)
    try:
        while left:
            (ready,), _ = ray.wait(list(busy), num_returns=1)
            actor, finished = busy.pop(ready)
            figures = _result(ready, finished)
            shard = next(waiting, None)
            if shard is not None:
                busy[actor.score.remote(shard, plan.shard(shard))] = (actor, shard)
            if finished is not None:
                left -= 1
                yield figures
    finally:
        for actor in actors:
            ray.kill(actor)


def _result(reference: Any, shard: int | None) -> tuple[int, int]:
    """Fetch what an actor gave; our own errors come out as they went in."""
    import ray

    try:
        figures: tuple[int, int] = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, GanRayError):
            raise error.cause from None
        raise
    except ray.exceptions.RayActorError as error:
        raise ClusterError(
            f"shard {shard} lost its worker {_LIVES + 1} times, last: {error}. Look for an image "
            "that takes too much memory; the same command goes on with what is left."
        ) from error
    return figures
