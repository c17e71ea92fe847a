"""Jobs over whole prefixes: a queue, and a registry that outlives the process. No Ray here.

    REGISTRY/ID.json

The registry says which jobs there are; what is scored stands in the ledger of each job's sink. So a
process that starts on the registry of one that was killed goes on with its jobs, and no object is
scored twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pydantic

from gan_ray.artifacts.store import follows, resolve
from gan_ray.errors import ConfigError, DataError, GanRayError
from gan_ray.names import trace, use
from gan_ray.scoring.batch import Progress, score_prefix
from gan_ray.scoring.ledger import read_page
from gan_ray.scoring.shards import SHOWN_ERRORS
from gan_ray.storage import open_store
from serve.card import Card
from serve.schemas import JobError, JobRequest, JobStatus

logger = logging.getLogger("ray.serve")

KEPT = 1000
"""Jobs that the registry remembers; of older ones only their rows stay."""
RECENT = 50
"""Jobs of a list."""
WAITING = 100
"""Jobs that may wait for their turn."""
_THREADS = 16
_NO_PACE: dict[str, Any] = {"rate_per_s": None, "eta_s": None}

Run = Callable[[JobStatus, Progress, Callable[[], bool]], None]


class Cursor(NamedTuple):
    """Where a page of results begins."""

    shard: int = 0
    row: int = 0


class Page(NamedTuple):
    """Rows of a job."""

    lines: bytes
    """NDJSON: one row per line."""
    following: Cursor | None
    """Where the next page begins; None after the last."""


@dataclass(frozen=True)
class Prefixes:
    """Scores the prefix of a job with one of the bundles that are served."""

    bundles: Mapping[str, str]
    """Reference by name of the model."""
    registry: str | None
    workers: int
    key: str = field(default="", repr=False)
    """The `names.secret` of the process that set this up; "" in that process itself."""

    def __call__(self, job: JobStatus, progress: Progress, stop: Callable[[], bool]) -> None:
        """Score what is left of it.

        Raises:
            GanRayError: as `score_prefix`, or the model is no longer served.
        """
        if self.key:
            use(self.key)
        request, options = job.request, job.request.options
        reference = self.bundles.get(request.model)
        if reference is not None and follows(reference):  # a job keeps to the version it began with
            reference = f"{request.model}@{job.version}"
        folder = None if reference is None else resolve(reference, self.registry)
        if folder is None or Card.read(folder).manifest.version != job.version:
            raise ConfigError(
                f"version {job.version} of model '{request.model}' is not served any more: send "
                "the job anew, with an empty sink."
            )
        score_prefix(
            folder,
            request.source.uri,
            request.sink.uri,
            workers=self.workers,
            glob=request.source.glob,
            maps=options.maps,
            max_errors=options.max_errors,
            stratum=options.stratum,
            progress=progress,
            stop=stop,
        )


class Jobs:
    """Runs jobs in the order of their coming, some at once, and knows what became of them."""

    def __init__(self, registry: str, run: Run, at_once: int = 1) -> None:
        """Go on with the jobs that the registry has as not ended.

        Raises:
            StorageError: the registry cannot be read.
        """
        self._registry, self._run = open_store(registry), run
        self._changing = threading.Lock()
        self._known = {job.id: job for job in self._read()}
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        for job in self._known.values():
            if not job.ended:
                self._waiting.put(job.id)
        for _ in range(at_once):  # as daemons: a process that is told to end does not wait for them
            threading.Thread(target=self._work, daemon=True).start()

    async def submit(self, name: str, request: JobRequest, version: str) -> JobStatus | None:
        """Give the job `name`, made from the request if there was none; None: too many wait."""
        return await asyncio.to_thread(self._submit, name, request, version)

    async def recent(self) -> list[JobStatus]:
        """Give the newest jobs, the newest first."""
        return list(reversed(self._known.values()))[:RECENT]

    async def get(self, name: str) -> JobStatus | None:
        """Give a job; None when there is none of that name."""
        return self._known.get(name)

    async def cancel(self, name: str) -> JobStatus | None:
        """End a job where it stands, unless it has ended; what is done stays."""
        return await asyncio.to_thread(self._cancel, name)

    async def results(self, name: str, start: Cursor, limit: int) -> Page | None:
        """Give up to `limit` of its rows, in the order of the objects' keys."""
        job = self._known.get(name)
        return None if job is None else await asyncio.to_thread(_page, job, start, limit)

    def _read(self) -> list[JobStatus]:
        def read(key: str) -> JobStatus | None:
            try:
                return JobStatus.model_validate_json(self._registry.get(key))
            except pydantic.ValidationError:
                logger.error("%s in %s is no job of this gan-ray", key, self._registry.uri)
                return None

        with ThreadPoolExecutor(_THREADS) as threads:
            found = threads.map(read, [entry.key for entry in self._registry.list()])
            jobs = [job for job in found if job is not None]
        return sorted(jobs, key=lambda job: job.created)

    def _keep(self, job: JobStatus, **changes: Any) -> JobStatus:
        """Remember a job as it is now, and write it down; the caller holds the lock."""
        job = job.model_copy(update=changes)
        self._registry.put(f"{job.id}.json", job.model_dump_json(indent=1).encode())
        self._known[job.id] = job
        return job

    def _submit(self, name: str, request: JobRequest, version: str) -> JobStatus | None:
        with self._changing:
            if name in self._known:
                return self._known[name]
            if sum(job.state == "queued" for job in self._known.values()) >= WAITING:
                return None
            now = datetime.now(UTC)
            job = JobStatus(id=name, state="queued", request=request, version=version, created=now)
            self._keep(job)
            ended = [job.id for job in self._known.values() if job.ended]
            for old in ended[: max(0, len(self._known) - KEPT)]:
                self._registry.delete(f"{old}.json")
                del self._known[old]
        self._waiting.put(name)
        return job

    def _cancel(self, name: str) -> JobStatus | None:
        with self._changing:
            job = self._known.get(name)
            if job is None or job.ended:
                return job
            return self._keep(job, state="cancelled", **_NO_PACE)

    def _work(self) -> None:
        while True:
            name = self._waiting.get()
            try:
                self._work_on(name)
            except Exception as error:  # the registry cannot be written: the next may go better
                logger.error("job %s was not written down: %s", name, trace(error))
                told = {"state": "failed", "error": "the place of the jobs cannot be written"}
                with self._changing:
                    self._known[name] = self._known[name].model_copy(update=told | _NO_PACE)

    def _work_on(self, name: str) -> None:
        with self._changing:
            if self._known[name].ended:
                return
            job = self._keep(self._known[name], state="running", **_NO_PACE)

        def progress(figures: dict[str, Any]) -> None:
            errors = [*job.errors, *map(JobError.model_validate, figures["errors"])][:SHOWN_ERRORS]
            rate, left = figures["rate_per_s"], figures["eta_s"]
            told = {
                "total": figures["total"],
                "done": figures["objects"],
                "failed": figures["failed"],
            }
            with self._changing:
                now = self._known[name]
                if left is not None and not now.ended:
                    told |= {"rate_per_s": round(rate, 3), "eta_s": round(left, 1)}
                if errors != now.errors:  # of all else, the ledger knows more than the registry
                    self._keep(now, **told, errors=errors)
                else:
                    self._known[name] = now.model_copy(update=told)

        outcome: dict[str, Any] = {"state": "done"}
        try:
            self._run(job, progress, lambda: self._known[name].ended)
        except GanRayError as error:
            resumable = not isinstance(error, ConfigError | DataError)
            outcome = {"state": "failed", "error": str(error), "resumable": resumable}
        except Exception as error:
            logger.error("job %s failed: %s", name, trace(error))
            outcome = {"state": "failed", "error": "the server failed: its log says where"}
        with self._changing:
            now = self._known[name]
            self._keep(now, **({} if now.ended else outcome), **_NO_PACE)  # ended: it was cancelled


def _page(job: JobStatus, start: Cursor, limit: int) -> Page:
    sink = open_store(job.request.sink.uri)
    rows, following = read_page(sink, *start, limit, ended=job.ended)
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    return Page(lines, None if following is None else Cursor(*following))
