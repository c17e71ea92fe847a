"""The versions of a model: which are served, which answers, and why others do not. No Ray here.

A bundle that is given as `name@newest` is followed: a version that is published takes over once all
scoring processes hold it and its golden images came out right; until then, and if they do not, the
one before it answers. What is served follows from the registry alone, so a process that starts anew
serves the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from gan_ray.errors import ArtifactError, GanRayError
from gan_ray.names import trace
from serve.card import Card
from serve.failures import Failure
from serve.model import MODEL_FAULT, Fault, Job, Reply

logger = logging.getLogger("ray.serve")

RETRY_S = 60.0
"""Seconds after which a refused version is tried again; each time twice as many."""
RETRY_AT_MOST_S = 3600.0


class Served(Protocol):
    """A version of a model, wherever it runs."""

    @property
    def card(self) -> Card:
        """What it is."""

    def admit(self) -> None:
        """Raise Failure (429) when it has too much to do, before a body is read."""

    async def score(self, job: Job) -> Reply:
        """Score the images of a job; raises Failure (429) when it has too much to do."""

    async def ready(self) -> None:
        """Return when it reproduces its golden scores; raises when it does not."""


class Version:
    """A version that is served, and whether it can still be trusted."""

    def __init__(self, served: Served) -> None:
        """Trust it."""
        self._served = served
        self.fault = ""
        """Why it is unready for good; "" while it is not."""

    @property
    def card(self) -> Card:
        """What it is."""
        return self._served.card

    def admit(self) -> None:
        """Raise Failure (429) when it has too much to do."""
        self._served.admit()

    async def score(self, job: Job) -> Reply:
        """Score the images of a job, and remember a score that is no number."""
        reply = await self._served.score(job)
        faults = [case for case in reply.cases if isinstance(case, Fault)]
        if not self.fault and any(fault.code == MODEL_FAULT for fault in faults):
            self.fault = "it gave a score that is no finite number"
            logger.error("%s is unready: %s", self.card.manifest.reference, self.fault)
        return reply

    async def ready(self) -> None:
        """Return when it reproduces its golden scores and no score was otherwise.

        Raises:
            Failure: it gave a score that is no number (503).
            Exception: whatever keeps it from its golden scores.
        """
        if self.fault:
            hint = "publish another version, or start the endpoint anew when the cause is mended"
            reference = self.card.manifest.reference
            raise Failure(503, "NOT_READY", f"{reference}: {self.fault}", hint)
        await self._served.ready()


class Line:
    """The versions of one model, the newest first; it answers where no version is named."""

    def __init__(self, *served: Served) -> None:
        """Serve these."""
        self._versions = {one.card.manifest.version: Version(one) for one in served}

    @property
    def versions(self) -> list[str]:
        """Names of the versions that are served, the newest first."""
        return list(self._versions)

    @property
    def refused(self) -> dict[str, str]:
        """Why newer versions are not served, by version."""
        return {}

    def version(self, name: str | None = None) -> Version:
        """Give a version; without a name the newest.

        Raises:
            Failure: it is not served (404).
        """
        newest = next(iter(self._versions.values()))
        if name is None:
            return newest
        if name not in self._versions:
            error = f"there is no version '{name[:128]}' of model '{newest.card.name}'"
            hint = f"versions here: {', '.join(self._versions)}"
            raise Failure(404, "UNKNOWN_VERSION", error, hint)
        return self._versions[name]


class Refused(Exception):
    """A version that must not answer; says why, in words that a client may read."""


@dataclass(frozen=True)
class _Refusal:
    why: str
    wait_s: float
    again: float
    """`time.monotonic()` from which it is tried again."""


class Followed(Line):
    """The newest versions in a registry that work."""

    def __init__(
        self,
        references: Callable[[], list[str]],
        load: Callable[[str], Awaitable[Served]],
        most: int,
    ) -> None:
        """Serve up to `most` of the `name@version` that `references` gives, the newest first.

        `load` brings one to where it scores and raises `Refused` if it must not answer. Nothing is
        served before the first `look`.
        """
        super().__init__()
        self._references, self._load, self._most = references, load, most
        self._refusals: dict[str, _Refusal] = {}

    @property
    def refused(self) -> dict[str, str]:
        """Why newer versions are not served, by version."""
        return {version: refusal.why for version, refusal in self._refusals.items()}

    async def look(self) -> None:
        """Serve what the registry now has; what was removed from it is served no longer.

        Raises:
            ArtifactError: nothing in it works; what was served goes on.
            StorageError: it cannot be read; the same.
        """
        references = await asyncio.to_thread(self._references)
        working: dict[str, Version] = {}
        looked_at: dict[str, _Refusal] = {}
        for reference in references:
            if len(working) == self._most:
                break
            version = reference.rpartition("@")[2]
            found = self._versions.get(version) or await self._try(reference, version)
            if isinstance(found, Version):
                working[version] = found
            else:
                looked_at[version] = found
        self._refusals = looked_at
        if not working:
            told = "; ".join(f"{version}: {refusal.why}" for version, refusal in looked_at.items())
            raise ArtifactError(f"no version works ({told}): publish one that does")
        if next(iter(working)) != next(iter(self._versions), None):
            logger.warning("%s answers now", next(iter(working.values())).card.manifest.reference)
        self._versions = working

    async def watch(self, every_s: float) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.look()
            except GanRayError as error:
                logger.error("no look at new versions: %s", error)
            except Exception as error:
                logger.error("no look at new versions: %s", trace(error))

    async def _try(self, reference: str, version: str) -> Version | _Refusal:
        before = self._refusals.get(version)
        if before is not None and time.monotonic() < before.again:
            return before
        try:
            return Version(await self._load(reference))
        except Refused as error:
            why = str(error)
        wait_s = RETRY_S if before is None else min(2 * before.wait_s, RETRY_AT_MOST_S)
        if before is None or before.why != why:
            logger.error("%s does not take over: %s", reference, why)
        return _Refusal(why, wait_s, time.monotonic() + wait_s)
