"""A shard of a batch job: some objects, read, scored and committed together. No Ray here."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from gan_ray.artifacts.bundle import Bundle, load_bundle
from gan_ray.names import use
from gan_ray.scoring.ledger import Job, Planned, commit
from gan_ray.scoring.pace import at_once
from gan_ray.scoring.scorer import FileResult, Scorer
from gan_ray.storage import ObjectUnusable, open_store

SHOWN_ERRORS = 10
"""Of the objects that could not be scored, so many are told of beside the count."""

MAX_BYTES = 2**28
"""An object may have so many bytes: three channels of 16 bits at `MAX_PIXELS`, uncompressed."""

_AT_ONCE = 32  # objects read, decoded and scored together, while as many are read ahead
_THREADS = 16

_Reading = list[tuple[Planned, "Future[bytes | str]"]]


@dataclass(frozen=True)
class Shard:
    """What became of a shard."""

    scored: int
    failed: int
    errors: tuple[dict[str, str], ...]
    """The first of those that failed: id and error."""


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
        self._begun: _Reading = []

    def prepare(self) -> None:
        """Load the model; says that the actor has a place on the cluster and works."""
        _ = self._model

    def score(
        self, shard: int, objects: Sequence[Planned], following: Sequence[Planned] = ()
    ) -> Shard:
        """Score the objects of a shard and commit them.

        Meanwhile the first of those `following` are read, which the next shard should begin with:
        a worker need not wait for its store at the end of each shard.

        Raises:
            StorageError: source or sink cannot be used; nothing was committed.
        """
        bundle, scorer = self._model
        rows: list[dict[str, object]] = []
        for group in self._read_ahead(objects, following, scorer.batch_size):
            readable = [
                (one, one.key, content)
                for one, content in group
                if one.key is not None and isinstance(content, bytes)
            ]
            results = scorer.score_files([row[1:] for row in readable], maps=self._job.maps)
            by_id = {one.id: result for (one, *_), result in zip(readable, results, strict=True)}
            self._keep_maps(by_id)
            for one, content in group:
                result = by_id.get(one.id) or FileResult(one.id, error=str(content))
                rows.append(self._row(one, result, bundle))
        commit(self._sink, shard, rows)
        failed = [row for row in rows if row["error"] is not None]
        told = ({"id": str(row["id"]), "error": str(row["error"])} for row in failed)
        return Shard(len(rows) - len(failed), len(failed), tuple(islice(told, SHOWN_ERRORS)))

    @cached_property
    def _model(self) -> tuple[Bundle, Scorer]:
        with tempfile.TemporaryDirectory() as folder:
            for name, data in self._files.items():
                (Path(folder) / name).write_bytes(data)
            bundle = load_bundle(folder)
        together = at_once(_AT_ONCE, bundle.manifest.passes_per_image)
        return bundle, Scorer.from_bundle(bundle, batch_size=together)

    def _read_ahead(
        self, objects: Sequence[Planned], following: Sequence[Planned], some: int
    ) -> Iterator[list[tuple[Planned, bytes | str]]]:
        """Give objects with their contents, some at a time, while the next ones are being read."""
        reading, self._begun = self._begun, []
        if [one for one, _ in reading] != list(objects[:some]):
            reading = self._begin(objects[:some])
        for at in range(some, len(objects) + some, some):
            current, reading = reading, self._begin(objects[at : at + some] or following[:some])
            yield [(one, content.result()) for one, content in current]
        self._begun = reading

    def _begin(self, objects: Sequence[Planned]) -> _Reading:
        return [(one, self._threads.submit(self._read, one)) for one in objects]

    def _read(self, planned: Planned) -> bytes | str:
        if planned.key is None:
            return f"no object #{planned.id} in {self._source.uri}: it went away after the listing."
        try:
            return self._source.get(planned.key, etag=planned.etag, most=MAX_BYTES)
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
