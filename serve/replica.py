"""A scoring process: the versions of one model, and requests that share its batches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence

from ray import serve as ray_serve

from gan_ray.artifacts.bundle import load_bundle, refuse_conditional
from gan_ray.artifacts.manifest import Manifest
from gan_ray.artifacts.store import candidates, resolve
from gan_ray.errors import ArtifactError, ConfigError, StorageError
from gan_ray.names import trace
from serve.model import Images, Job, Model, Reply
from serve.prometheus import OfScorer
from serve.settings import AppArgs

logger = logging.getLogger("ray.serve")

SWITCH_S = 0.05
"""Seconds after which a thread must let another one run Python. A process that has one core and
sixteen readers loses a tenth of it to Python's 0.005; readers let go by themselves at each wait."""


class Unfit(ArtifactError):
    """A bundle that must not answer."""

    why = ""
    """The reason in words that a client may read: no path is in them."""


class Replica:
    """Holds a `Model` per version; Serve reports it ready only after golden scores came out right.

    Models are known by their references. What cannot be loaded is told by a reason in words that a
    client may read, as a value: Ray logs what is raised.
    """

    def __init__(self, bundle: str, args: AppArgs) -> None:
        """Load and verify the bundle; of `name@newest` the newest version that works.

        Raises:
            ArtifactError: it is damaged, or gives other scores here than where it was exported.
        """
        sys.setswitchinterval(SWITCH_S)
        self._args, self._loading, self._figures = args, asyncio.Lock(), OfScorer()
        self._models: dict[str, Model] = {}  # the one that was used last is last
        *others, last = candidates(bundle, args.registry)
        for reference in others:
            try:
                self._models[reference] = self._open(reference)
                break
            except (Unfit, StorageError) as error:
                logger.error("%s cannot answer: %s", reference, error)
        else:
            self._models[last] = self._open(last)
        (first,) = self._models.values()
        largest = args.pace(first.bundle.manifest.passes_per_image).max_batch

        def images(requests: Sequence[tuple[Model, Images]]) -> int:
            # A request beyond the size of a batch fills one, and `Scorer` cuts it into several.
            return sum(min(len(request), largest) for _, request in requests)

        self._together = ray_serve.batch(
            max_batch_size=largest,
            batch_wait_timeout_s=args.batch_wait_s,
            batch_size_fn=images,
        )(self._score)

    async def load(self, reference: str) -> Manifest | str:
        """Hold a version, and give its manifest; or say why it must not answer."""
        model = await self._held(reference)
        return model if isinstance(model, str) else model.bundle.manifest

    async def score(self, reference: str, job: Job) -> Reply | str:
        """Score the images of a job, as one batch with those of the jobs beside it."""
        model = await self._held(reference)
        if isinstance(model, str):
            return model
        try:
            images = await asyncio.to_thread(model.read, job)
            reply: Reply = await self._together((model, images))
        except Exception as error:  # Ray logs what it is handed, and a message may name files
            told = trace(error)
        else:
            return reply
        raise RuntimeError(told)

    async def ready(self, reference: str) -> str:
        """Score golden images again; says why not, or "" when they came out right."""
        model = await self._held(reference)
        if isinstance(model, str):
            return model
        try:
            await asyncio.to_thread(model.check_golden)
        except ArtifactError as error:
            logger.error("%s", error)
            return "its golden images score otherwise now"
        return ""

    async def _held(self, reference: str) -> Model | str:
        """Give the model, loaded if need be while the others go on; or say why it cannot be."""
        if reference not in self._models:
            async with self._loading:
                if reference not in self._models:
                    try:
                        model = await asyncio.to_thread(self._open, reference)
                    except Unfit as error:
                        logger.error("%s cannot answer: %s", reference, error)
                        return error.why
                    except StorageError as error:
                        logger.error("%s cannot be read: %s", reference, error)
                        return "it cannot be read from the registry"
                    while len(self._models) >= self._args.versions:
                        del self._models[next(iter(self._models))]
                    self._models[reference] = model
        model = self._models.pop(reference)
        self._models[reference] = model
        return model

    def _open(self, reference: str) -> Model:
        args = self._args
        with _unfit("a file of it is missing, damaged, or of another version of this software"):
            folder = resolve(reference, args.registry)
            bundle = load_bundle(folder)
        with _unfit("it needs the class of each image"):
            refuse_conditional(bundle.manifest, folder)
        largest = args.pace(bundle.manifest.passes_per_image).max_batch
        with _unfit("its golden images score otherwise here than where it was exported"):
            return Model(bundle, device=args.device, batch_size=largest, limits=args.limits)

    async def _score(self, waiting: list[tuple[Model, Images]]) -> list[Reply]:
        name = waiting[0][0].bundle.manifest.name  # all versions of a model have it
        self._figures.batch(name, sum(len(images) for _, images in waiting))
        return await asyncio.to_thread(by_model, waiting)


@contextlib.contextmanager
def _unfit(why: str) -> Iterator[None]:
    try:
        yield
    except (ArtifactError, ConfigError) as error:
        unfit = Unfit(str(error))
        unfit.why = why
        raise unfit from None


def by_model(waiting: Sequence[tuple[Model, Images]]) -> list[Reply]:
    """Let each model score its jobs together; replies are in the order of `waiting`."""
    replies: dict[int, Reply] = {}
    for model in dict.fromkeys(model for model, _ in waiting):
        places = [place for place, (one, _) in enumerate(waiting) if one is model]
        found = model.score([waiting[place][1] for place in places])
        replies |= dict(zip(places, found, strict=True))
    return [replies[place] for place in range(len(waiting))]
