"""Figures of the endpoint for Prometheus, on the metrics port of each Ray node (docs/observing.md).

Ray puts `ray_` before the names. Labels are names and versions of bundles, statuses and reasons:
never what a client sent. Each class belongs to one process: the ingress, scorers, the jobs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gan_ray.scoring.batch import Progress
from serve.card import Card
from serve.jobs import Run
from serve.model import MODEL_FAULT, Case, Reply
from serve.schemas import JobStatus

MODEL = ("model", "version")
RECENT = 1000
"""Decisions that the share of alarms is of."""
REFRESH_S = 2.0
REASONS = {429: "rejected", 422: "decode", 415: "decode", 500: "backend", 503: "backend",
           504: "backend"}  # fmt: skip
"""Why a request failed, by its status; any other is `other`."""
GONE = "CLIENT_GONE"
_SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30]
_SCORES = [step * 10.0**power for power in range(-4, 4) for step in (1, 2, 5)]
_P_VALUES = [0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
_BATCHES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]


class OfIngress:
    """What was asked for, what was answered, and what the scores were."""

    def __init__(self) -> None:
        """Show nothing yet."""

        def seconds(name: str, says: str) -> Histogram:
            return Histogram(f"gan_ray_{name}", says, boundaries=_SECONDS, tag_keys=MODEL)

        self._requests = Counter("gan_ray_requests_total", "Requests answered.", (*MODEL, "code"))
        self._failures = Counter(
            "gan_ray_request_failures_total", "Requests that failed.", (*MODEL, "reason")
        )
        self._images = Counter("gan_ray_images_total", "Images scored.", MODEL)
        self._times = {
            "queue": seconds("queue_seconds", "Waiting for a batch."),
            "decode": seconds("decode_seconds", "Fetching and decoding the images of a request."),
            "infer": seconds("infer_seconds", "The batch in the networks."),
        }
        self._scores = Histogram(
            "gan_ray_score", "Scores of images.", boundaries=_SCORES, tag_keys=MODEL
        )
        self._p_values = Histogram(
            "gan_ray_p_value",
            "P-values of images: evenly spread while they are normal and as calibrated.",
            boundaries=_P_VALUES,
            tag_keys=MODEL,
        )
        self._alarms = Gauge(
            "gan_ray_alarm_ratio", f"Share of alarms among the last {RECENT:,} decisions.", MODEL
        )
        self._depth = Gauge("gan_ray_queue_depth", "Images that are in.", ("model",))
        self._ready = Gauge("gan_ray_ready", "1 while golden scores come out right.", MODEL)
        self._recent: dict[tuple[str, str], deque[bool]] = {}
        self._levels: dict[tuple[Gauge, tuple[tuple[str, str], ...]], float] = {}

    def around(self, app: ASGIApp) -> ASGIApp:
        """Give the application with its answers counted: for `FastAPI.add_middleware`."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            status = 499  # nginx's, for a client that was gone before there was an answer

            async def noted(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            if scope["type"] == "lifespan":
                refreshing = asyncio.create_task(self._refresh())
                try:
                    await app(scope, receive, send)
                finally:
                    refreshing.cancel()
                return
            try:
                await app(scope, receive, noted)
            finally:
                if scope["type"] == "http":
                    self._answered(scope, status)

        return counted

    async def _refresh(self) -> None:
        """Set all gauges again and again: a node forgets one that is not set for some seconds."""
        while True:
            for (gauge, labels), level in self._levels.items():
                gauge.set(level, dict(labels))
            await asyncio.sleep(REFRESH_S)

    def _set(self, gauge: Gauge, level: float, labels: Mapping[str, str]) -> None:
        self._levels[gauge, tuple(labels.items())] = level
        gauge.set(level, dict(labels))

    def _answered(self, scope: Scope, status: int) -> None:
        state = scope.get("state", {})
        version = state.get("chosen")
        labels = _labels(version.card) if version is not None else dict.fromkeys(MODEL, "")
        self._requests.inc(1, {**labels, "code": str(status)})
        if status >= 400:
            gone = status == 499 or state.get("code") == GONE
            reason = "canceled" if gone else REASONS.get(status, "other")
            self._failures.inc(1, {**labels, "reason": reason})

    def scored(self, card: Card, reply: Reply) -> None:
        """Show what became of a request's images."""
        labels = _labels(card)
        for part, histogram in self._times.items():
            histogram.observe(reply.timing_ms[part] / 1000, labels)
        recent = self._recent.setdefault((card.name, labels["version"]), deque(maxlen=RECENT))
        cases = [case for case in reply.cases if isinstance(case, Case)]
        for case in cases:
            self._scores.observe(case.score, labels)
            if case.p_value is not None:
                self._p_values.observe(case.p_value, labels)
            if case.abnormal is not None:
                recent.append(bool(case.abnormal))
        if cases:
            self._images.inc(len(cases), labels)
        if recent:
            self._set(self._alarms, sum(recent) / len(recent), labels)
        if any(getattr(case, "code", "") == MODEL_FAULT for case in reply.cases):
            self.ready(card, False)

    def ready(self, card: Card, well: bool) -> None:
        """Show whether a version gives its golden scores."""
        self._set(self._ready, float(well), _labels(card))

    def inside(self, model: str, images: int) -> None:
        """Show how many images are in."""
        self._set(self._depth, images, {"model": model})


class OfScorer:
    """How full the batches of a scoring process are."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._sizes = Histogram(
            "gan_ray_batch_size",
            "Images that go through the networks together.",
            boundaries=_BATCHES,
            tag_keys=("model",),
        )

    def batch(self, model: str, images: int) -> None:
        """Show a batch."""
        self._sizes.observe(images, {"model": model})


@dataclass(frozen=True)
class Counted:
    """Runs a job as `run` does, and counts its objects."""

    run: Run

    def __call__(self, job: JobStatus, progress: Progress, stop: Callable[[], bool]) -> None:
        """Run it; objects of an earlier process are not counted again."""
        objects = Counter(
            "gan_ray_job_objects_total", "Objects of jobs that are done.", ("model", "state")
        )
        before = {"scored": -1, "failed": -1}

        def counted(figures: dict[str, Any]) -> None:
            done = {"scored": figures["objects"] - figures["failed"], "failed": figures["failed"]}
            for state, count in done.items():
                if before[state] >= 0 and count > before[state]:
                    objects.inc(count - before[state], {"model": job.request.model, "state": state})
                before[state] = count
            progress(figures)

        self.run(job, counted, stop)


def _labels(card: Card) -> dict[str, str]:
    return {"model": card.name, "version": card.manifest.version}
