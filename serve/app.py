"""The Serve application: an HTTP ingress in front of one group of scoring processes per bundle.

`serve.app:build` is what a Serve config names.
"""

# No postponed annotations here: Ray reads the class `AppArgs` off the signature of `build`.

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI
from ray import serve as ray_serve
from ray.exceptions import RayActorError
from ray.serve import Application
from ray.serve.config import BackpressureConfig
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from gan_ray.artifacts.store import candidates, follows
from gan_ray.cluster import environment
from gan_ray.errors import ConfigError
from gan_ray.names import secret
from serve.api import api
from serve.card import Card
from serve.drain import Drain
from serve.failures import Failure
from serve.jobs import Cursor, Jobs, Page, Prefixes
from serve.line import Followed, Refused
from serve.model import Job, Reply
from serve.prometheus import Counted, OfIngress
from serve.replica import Replica
from serve.schemas import JobRequest, JobStatus
from serve.settings import DEADLINE_S, AppArgs

RETRY_AFTER_S = 1
RESTART_S = 10
HEALTH_S = 2  # between two looks whether the process of the jobs lives
TO_REFUSE = 256  # requests that the ingress takes beyond what can be scored, to refuse them itself


class Processes:
    """The scoring processes of a model: they hold its versions and have room for some images."""

    def __init__(self, name: str, handle: DeploymentHandle, room: int, figures: OfIngress) -> None:
        """Speak for the processes behind `handle`, which take more until `room` images are in."""
        self.name, self.figures = name, figures
        self._handle, self._room, self._inside = handle, room, 0

    def admit(self) -> None:
        """Refuse more work (429) when there is enough: who waits longer is served worse."""
        if self._inside >= self._room:
            raise _overloaded()

    async def score(self, reference: str, job: Job) -> Reply:
        """Let one of them score the job."""
        self.admit()
        self._enter(job.images)
        try:
            reply: Reply | str = await self._handle.score.remote(reference, job)
        except BackPressureError:
            raise _overloaded() from None
        finally:
            self._enter(-job.images)
        if isinstance(reply, str):
            raise Failure(503, "NOT_READY", reply, "try again later", retry_after=RESTART_S)
        return reply

    def _enter(self, images: int) -> None:
        self._inside += images
        self.figures.inside(self.name, self._inside)

    async def ready(self, reference: str) -> None:
        """Let one of them check its golden scores."""
        why: str = await self._handle.ready.remote(reference)
        if why:
            raise Failure(503, "NOT_READY", why, "wait, or read the server's log")

    async def load(self, reference: str) -> "Remote":
        """Let all of them hold a version; one that starts later does so when it is first asked.

        Raises:
            Refused: one of them cannot.
        """
        while True:
            try:
                told = await self._handle.broadcast("load", reference).results_async()
                break
            except DeploymentUnavailableError:  # they are being started
                await asyncio.sleep(HEALTH_S)
            except RayActorError:
                raise Refused("a scoring process ended while it was loaded") from None
        for one in told:
            if isinstance(one, str):
                raise Refused(one)
        return Remote(Card(told[0]), self, reference)


@dataclass(frozen=True)
class Remote:
    """A version of a model that runs in scoring processes."""

    card: Card
    processes: Processes
    reference: str

    def admit(self) -> None:
        """Refuse more work (429) when there is enough."""
        self.processes.admit()

    async def score(self, job: Job) -> Reply:
        """Let one of them score the job."""
        reply = await self.processes.score(self.reference, job)
        self.processes.figures.scored(self.card, reply)
        return reply

    async def ready(self) -> None:
        """Let one of them check its golden scores."""
        well = False
        try:
            await self.processes.ready(self.reference)
            well = True
        finally:
            self.processes.figures.ready(self.card, well)


def _overloaded() -> Failure:
    return Failure(
        *(429, "OVERLOADED", "too many images are waiting"),
        f"retry after {RETRY_AFTER_S} s",
        retry_after=RETRY_AFTER_S,
    )


class RemoteJobs:
    """Jobs that run in a process of their own; see `jobs.Jobs`."""

    def __init__(self, handle: DeploymentHandle) -> None:
        """Speak for the process behind `handle`."""
        self._handle = handle

    async def submit(self, name: str, request: JobRequest, version: str) -> JobStatus | None:
        """Hand a job in."""
        job: JobStatus | None = await self._ask("submit", name, request, version)
        return job

    async def recent(self) -> list[JobStatus]:
        """Give the newest jobs."""
        jobs: list[JobStatus] = await self._ask("recent")
        return jobs

    async def get(self, name: str) -> JobStatus | None:
        """Give a job."""
        job: JobStatus | None = await self._ask("get", name)
        return job

    async def cancel(self, name: str) -> JobStatus | None:
        """End a job where it stands."""
        job: JobStatus | None = await self._ask("cancel", name)
        return job

    async def results(self, name: str, start: Cursor, limit: int) -> Page | None:
        """Give some of its rows."""
        page: Page | None = await self._ask("results", name, start, limit)
        return page

    async def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return await getattr(self._handle, method).remote(*arguments)
        except RayActorError:
            raise Failure(
                *(503, "RESTARTING", "the process of the jobs is being started anew"),
                "try again: its jobs go on by themselves",
                retry_after=RESTART_S,
            ) from None


@ray_serve.ingress()
class Ingress:
    """Answers HTTP; it holds no network."""

    def __init__(
        self,
        args: AppArgs,
        jobs: DeploymentHandle | None,
        *models: tuple[str, Card, DeploymentHandle],
    ) -> None:
        """Serve `models`, each a reference, a card and who scores, by the names on the cards."""
        served: dict[str, Remote] = {}
        followed: dict[str, Followed] = {}
        figures = OfIngress()
        for reference, card, handle in models:
            processes = Processes(card.name, handle, card.pace(args).room, figures)
            if follows(reference):
                known = partial(candidates, reference, args.registry)
                followed[card.name] = Followed(known, processes.load, args.versions)
            else:
                served[card.name] = Remote(card, processes, reference)
        desk = None if jobs is None else RemoteJobs(jobs)
        self._api = api(args, served, desk, followed=followed)
        self._drain = Drain()
        self._api.add_middleware(self._drain.around)
        self._api.add_middleware(figures.around)  # the last one added is the first to be asked

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Give Ray the application, built in its own process."""
        return self._api

    async def drain(self) -> None:
        """Take no more requests, and return when all who are in have their answers."""
        await self._drain.close()


def build(args: AppArgs) -> Application:
    """Give the application for the bundles in `args`, ready for `serve.run`.

    Raises:
        ArtifactError: a bundle cannot be found or read.
        ConfigError: two bundles have the same name, one needs the class of each image, or strangers
            could reach the endpoint.
    """
    args.check_exposure()
    overload = BackpressureConfig(status_code=429, retry_after_s=RETRY_AFTER_S)
    processes: dict[str, Any] = {
        "num_cpus": 1,
        "num_gpus": args.gpus_per_replica,
        "runtime_env": {"env_vars": environment()},
    }
    models: list[tuple[str, Card, Application]] = []
    references: dict[str, str] = {}
    most, longest = 0, DEADLINE_S
    for reference in args.bundles:
        card = Card.of(reference, args.registry)
        if card.name in references:
            raise ConfigError(
                f"two bundles have the name '{card.name}', which is their address: serve one of "
                "them, or export the other under another name."
            )
        pace = card.pace(args)
        most += pace.replicas * pace.ongoing + pace.queued
        longest = max(longest, pace.deadline_s)
        replicas = ray_serve.deployment(
            Replica,
            name=f"score-{card.name}",
            **args.scaling,
            max_ongoing_requests=pace.ongoing,
            max_queued_requests=pace.queued,
            graceful_shutdown_timeout_s=pace.deadline_s,
            backpressure_config=overload,
            ray_actor_options=processes,
        )
        models.append((reference, card, replicas.bind(reference, args)))
        references[card.name] = reference
    ingress = ray_serve.deployment(
        Ingress,
        max_ongoing_requests=most + TO_REFUSE,
        max_queued_requests=TO_REFUSE,
        graceful_shutdown_timeout_s=longest,
        backpressure_config=overload,
        ray_actor_options={"num_cpus": 0},
    )
    jobs = None
    if args.allow_sink:
        work = Prefixes(references, args.registry, args.job_workers, secret())
        jobs = ray_serve.deployment(
            Jobs,
            name="jobs",
            health_check_period_s=HEALTH_S,
            ray_actor_options={**processes, "num_cpus": 0, "num_gpus": 0},
        ).bind(args.job_registry, Counted(work), args.jobs_at_once)
    return ingress.bind(args, jobs, *models)
