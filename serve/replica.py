"""A scoring process: one bundle, and requests that share its batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ray import serve as ray_serve

from gan_ray.artifacts.bundle import load_bundle
from gan_ray.artifacts.store import resolve
from gan_ray.names import trace
from serve.model import Images, Job, Model, Reply
from serve.settings import AppArgs


class Replica:
    """Holds a `Model`; Serve reports it ready only after the golden scores came out right."""

    def __init__(self, bundle: str, args: AppArgs) -> None:
        """Load and verify the bundle.

        Raises:
            ArtifactError: it is damaged, or gives other scores here than where it was exported.
        """
        loaded = load_bundle(resolve(bundle, args.registry))
        largest = args.pace(loaded.manifest.passes_per_image).max_batch
        self._model = Model(loaded, device=args.device, batch_size=largest, limits=args.limits)

        def images(requests: Sequence[Images]) -> int:
            # A request beyond the size of a batch fills one, and `Scorer` cuts it into several.
            return sum(min(len(request), largest) for request in requests)

        self._together = ray_serve.batch(
            max_batch_size=largest,
            batch_wait_timeout_s=args.batch_wait_s,
            batch_size_fn=images,
        )(self._score)

    async def score(self, job: Job) -> Reply:
        """Score the images of a job, as one batch with those of the jobs beside it."""
        try:
            reply: Reply = await self._together(await asyncio.to_thread(self._model.read, job))
        except Exception as error:  # Ray logs what it is handed, and a message may name files
            told = trace(error)
        else:
            return reply
        raise RuntimeError(told)

    async def ready(self) -> None:
        """Score golden images again; raises ArtifactError when they came out otherwise."""
        await asyncio.to_thread(self._model.check_golden)

    async def _score(self, jobs: list[Images]) -> list[Reply]:
        return await asyncio.to_thread(self._model.score, jobs)
