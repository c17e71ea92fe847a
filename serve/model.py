"""A bundle at work: reads images and scores them, without HTTP and without Ray.

A `Job` is what one request wants; jobs of several requests go through the networks together.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np

from gan_ray.artifacts.bundle import Bundle
from gan_ray.artifacts.parity import replay
from gan_ray.data.readers import read_image
from gan_ray.data.transforms import prepare, widen
from gan_ray.errors import DataError, StorageError
from gan_ray.names import Public
from gan_ray.scoring.pace import at_once
from gan_ray.scoring.scorer import Scorer
from gan_ray.storage import ObjectMissing, ObjectTooLarge, open_store, split_uri
from serve.settings import Limits

_SENT = Public("image")

MODEL_FAULT = "MODEL_FAULT"
"""Code of a `Fault` that says that the model, not the image, is at fault."""
READERS = 16  # images of a replica that are fetched at the same time
_UNUSABLE = "UNUSABLE_IMAGE"


@dataclass(frozen=True)
class Job:
    """What one request wants scored: one of `files`, `uris` and `pixels`."""

    files: tuple[bytes, ...] = ()
    uris: tuple[str, ...] = ()
    pixels: np.ndarray | None = None
    """[N, C, S, S], uint8 or uint16."""
    maps: bool = False
    reconstructions: bool = False
    stratum: str = ""
    """Scanner, site, ... that all its images are of, as the calibration names it."""

    @property
    def images(self) -> int:
        """How many images it holds."""
        return len(self.files) + len(self.uris) + (0 if self.pixels is None else len(self.pixels))


@dataclass(frozen=True)
class Fault:
    """Why one image could not be scored, with the HTTP status it would have alone."""

    status: int
    code: str
    error: str


@dataclass(frozen=True)
class Case:
    """One scored image; without calibration it has neither p-value nor decision."""

    score: float
    p_value: float | None
    abnormal: bool | None
    map: np.ndarray | None
    """[S, S]"""
    image: np.ndarray | None
    """[C, S, S], uint8 or uint16: what the networks saw, where a reconstruction is asked for."""
    reconstruction: np.ndarray | None
    """[C, S, S] in [-1, 1]"""


@dataclass(frozen=True)
class Images:
    """A job whose images are decoded, waiting for its turn since `since`."""

    rows: Sequence[np.ndarray | Fault]
    """[C, S, S] each."""
    job: Job
    decode_ms: float
    since: float

    def __len__(self) -> int:
        """Count the images, unreadable ones included."""
        return len(self.rows)


@dataclass(frozen=True)
class Reply:
    """What became of a job's images, in their order, and where the time went."""

    cases: list[Case | Fault]
    timing_ms: dict[str, float]


class Model:
    """Scores jobs with one bundle."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "cpu",
        batch_size: int = 32,
        limits: Limits | None = None,
    ) -> None:
        """Put the networks on the device and check that they give the golden scores there.

        Raises:
            ArtifactError: a golden score differs by more than 1e-4.
        """
        self.bundle = bundle
        self._limits = limits or Limits()
        self._scorer = Scorer.from_bundle(bundle, device=device, batch_size=batch_size)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        # Ray gave this process one core: who decodes a list and who scores have it in turns, and
        # do not spoil each other's caches (5.0 to 4.8 CPU-ms an image). A GPU works beside it.
        self._core = Lock() if device == "cpu" else nullcontext()
        replay(bundle, self._scorer)

    def check_golden(self) -> None:
        """Score the golden images again; of a system that searches as many as probes can wait for.

        Raises:
            ArtifactError: a score differs by more than 1e-4 from what the exporter wrote down.
        """
        golden, passes = self.bundle.golden.images, self.bundle.manifest.passes_per_image
        replay(self.bundle, self._scorer, at_once(len(golden), passes))

    def read(self, job: Job) -> Images:
        """Fetch and decode the images of a job; one that cannot be read becomes a `Fault`."""
        start = time.perf_counter()
        rows: list[np.ndarray | Fault]
        if job.pixels is not None:
            rows = list(job.pixels)
        elif job.uris:
            rows = []
            for fetched in self._fetched(job.uris):
                with self._core:
                    rows += [self._row(content, Public(uri)) for uri, content in fetched]
        else:
            rows = [self._row(data, _SENT) for data in job.files]
        return Images(rows, job, _milliseconds(start), time.perf_counter())

    def score(self, jobs: Sequence[Images]) -> list[Reply]:
        """Score the images of all jobs together; no score depends on its companions."""
        start = time.perf_counter()
        rows = [row for images in jobs for row in images.rows if not isinstance(row, Fault)]
        if len({row.dtype for row in rows}) > 1:
            rows = [widen(row) for row in rows]
        strata = [
            images.job.stratum
            for images in jobs
            for row in images.rows
            if not isinstance(row, Fault)
        ]
        cases = iter(
            self._cases(
                np.stack(rows),
                np.array(strata),
                maps=any(images.job.maps for images in jobs),
                reconstructions=any(images.job.reconstructions for images in jobs),
            )
            if rows
            else ()
        )
        infer_ms = _milliseconds(start)
        return [
            Reply(
                [
                    row if isinstance(row, Fault) else _asked_for(images.job, next(cases))
                    for row in images.rows
                ],
                {
                    "queue": round(1000 * (start - images.since), 3),
                    "decode": images.decode_ms,
                    "infer": infer_ms,
                },
            )
            for images in jobs
        ]

    def _cases(
        self, images: np.ndarray, strata: np.ndarray, *, maps: bool, reconstructions: bool
    ) -> list[Case | Fault]:
        with self._core:
            result = self._scorer.score_images(images, maps=maps, reconstructions=reconstructions)
        calibration = self.bundle.calibration
        p_values = None if calibration is None else calibration.p_values(result.scores, strata)
        abnormal = None if calibration is None else calibration.abnormal(result.scores, strata)
        reconstructed = result.reconstructions
        return [
            Case(
                score=float(score),
                p_value=None if p_values is None else float(p_values[n]),
                abnormal=None if abnormal is None else bool(abnormal[n]),
                map=None if result.maps is None else result.maps[n],
                image=images[n],
                reconstruction=None if reconstructed is None else reconstructed[n],
            )
            if np.isfinite(score)
            else Fault(500, MODEL_FAULT, "the model gave no finite score for this image")
            for n, score in enumerate(result.scores)
        ]

    def _fetched(self, uris: Sequence[str]) -> Iterator[list[tuple[str, bytes | Fault]]]:
        """Give objects with their contents, some at a time, while the next are being fetched."""

        def begin(at: int) -> list[tuple[str, Future[bytes | Fault]]]:
            group = uris[at : at + READERS]
            return [(uri, self._readers.submit(self._content, uri)) for uri in group]

        reading = begin(0)
        for at in range(READERS, len(uris) + READERS, READERS):
            current, reading = reading, begin(at)
            yield [(uri, content.result()) for uri, content in current]

    def _content(self, uri: str) -> bytes | Fault:
        try:
            place, key = split_uri(uri)
            return open_store(place).get(key, most=self._limits.body_bytes)
        except ObjectMissing as error:
            return Fault(404, "NO_OBJECT", str(error))
        except ObjectTooLarge as error:
            return Fault(422, _UNUSABLE, str(error))
        except StorageError as error:
            return Fault(502, "UNREACHABLE_OBJECT", str(error))

    def _row(self, content: bytes | Fault, name: str) -> np.ndarray | Fault:
        if isinstance(content, Fault):
            return content
        try:
            array = read_image(content, name)
            return prepare(array, self.bundle.manifest.image, self.bundle.manifest.fit)
        except DataError as error:
            return Fault(422, _UNUSABLE, str(error))


def _asked_for(job: Job, case: Case | Fault) -> Case | Fault:
    """Leave out pictures that the job wants not, though another of its batch may.

    A reply without any is so small that it travels beside Ray's object store, not through it.
    """
    if isinstance(case, Fault):
        return case
    shown = job.reconstructions
    return replace(
        case,
        map=case.map if job.maps else None,
        image=case.image if shown else None,
        reconstruction=case.reconstruction if shown else None,
    )


def _milliseconds(start: float) -> float:
    return round(1000 * (time.perf_counter() - start), 3)
