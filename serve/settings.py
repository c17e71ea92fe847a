"""What an operator sets: the arguments of `serve.app:build` and the limits on a request."""

import ipaddress
import os
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from gan_ray.errors import ConfigError
from gan_ray.scoring.pace import at_once, patience

TOKEN_VARIABLE = "GAN_RAY_TOKEN"
SHORTEST_TOKEN = 16  # characters
MAX_BATCH = 32
DEADLINE_S = 30.0
READY_WITHIN_S = 5.0
BUSY = 0.7
"""Requests in a scoring process on average, above which another is started: it is at work most of
the time. More would never be reached by long lists, of which few are let in at once."""
UPSCALE_S = 5.0
DOWNSCALE_S = 300.0


class Limits(BaseModel):
    """How much one request may ask for; shown by `GET /v2`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body_bytes: int = Field(default=32 * 2**20, gt=0)
    """Bytes of a body, all parts together."""
    parts: int = Field(default=64, gt=0)
    """Images of a multipart body, and images whose pictures are returned inline."""
    uris: int = Field(default=1024, gt=0)
    """Objects of a JSON list."""
    deadline_s: float | None = Field(default=None, gt=0)
    """Seconds until a request is answered or given up; left out, 30, and more for a system that
    searches, as `GET /v2/models/{m}` tells."""


@dataclass(frozen=True)
class Pace:
    """How the requests to one model are batched, queued and given up."""

    max_batch: int
    """Images that go through its networks together."""
    deadline_s: float
    """Seconds until a request is answered or given up."""
    ready_s: float
    """Seconds within which it must have scored golden images again."""
    replicas: int
    """Its scoring processes, at most."""

    @property
    def ongoing(self) -> int:
        """Requests that one scoring process works on at a time: two full batches of one image."""
        return 2 * self.max_batch

    @property
    def room(self) -> int:
        """Images that its processes take before more are answered 429.

        For each process a batch that is being read, one that waits and one in the networks. An
        answer then comes after three batches at most, however many ask.
        """
        return 3 * self.max_batch * self.replicas

    @property
    def queued(self) -> int:
        """Requests that may wait for the processes, whatever they hold; more are answered 429."""
        return 4 * self.replicas * self.ongoing


class AppArgs(BaseModel):
    """Arguments of the application, from `gan-ray serve` or from `args` of a Serve config."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundles: tuple[str, ...] = Field(min_length=1)
    """Folders of bundles, `name@version` in `registry`, or `name@newest`, which is followed: a
    version that is published takes over. Each name once."""
    registry: str | None = None
    """Where `name@version` is looked up: a directory or s3://bucket/prefix."""
    host: str = "0.0.0.0"
    """Address that Serve listens on (its `http_options.host`); any but loopback needs a token."""
    token: SecretStr = Field(
        default_factory=lambda: SecretStr(os.environ.get(TOKEN_VARIABLE, "")), repr=False
    )
    """Bearer token that clients must send; taken from GAN_RAY_TOKEN unless given."""
    allow: tuple[str, ...] = ()
    """Prefixes of the URIs that may be scored; none by default."""
    allow_sink: tuple[str, ...] = ()
    """Prefixes that jobs may write to; none by default, and then there are no jobs."""
    jobs: str = ""
    """Where jobs are written down; default: `jobs` in the first place of `allow_sink`."""
    job_workers: int = Field(default=1, gt=0)
    """Scoring processes of a job, beside those of requests."""
    jobs_at_once: int = Field(default=1, gt=0)
    """Jobs that are worked on at a time; others wait for their turn."""
    watch_s: float = Field(default=5.0, gt=0)
    """Seconds between two looks into the registry for versions of a bundle that is followed."""
    versions: int = Field(default=2, gt=0)
    """Versions of a followed bundle that are served by their numbers, the newest that work."""
    replicas: int = Field(default=1, gt=0)
    """Scoring processes per bundle."""
    max_replicas: int = Field(default=0, ge=0)
    """As many of them while much is asked, as far as the cluster has room; 0: never more."""
    max_batch: int | None = Field(default=None, gt=0)
    """Images that go through the networks together, over all waiting requests; left out, 32, and
    fewer for a system that searches, as `GET /v2/models/{m}` tells."""
    batch_wait_s: float = Field(default=0.005, ge=0)
    """Seconds that an image waits for others to share its batch."""
    device: str = "cpu"
    """Device of the networks: cpu or cuda."""
    gpus_per_replica: float = Field(default=0.0, ge=0)
    """GPUs per scoring process; fractions share a GPU."""
    limits: Limits = Limits()
    """Limits on a request."""

    def pace(self, passes_per_image: int) -> Pace:
        """Give the pace of a model by what an image costs it, where the operator set none."""
        return Pace(
            max_batch=self.max_batch or at_once(MAX_BATCH, passes_per_image),
            deadline_s=self.limits.deadline_s or patience(DEADLINE_S, passes_per_image),
            ready_s=patience(READY_WITHIN_S, passes_per_image),
            replicas=max(self.replicas, self.max_replicas),
        )

    @property
    def scaling(self) -> dict[str, Any]:
        """Give the options of a Serve deployment that say how many scoring processes it has."""
        if not self.max_replicas:
            return {"num_replicas": self.replicas}
        return {
            "autoscaling_config": {
                "min_replicas": self.replicas,
                "max_replicas": self.max_replicas,
                "target_ongoing_requests": BUSY,
                "upscale_delay_s": UPSCALE_S,
                "downscale_delay_s": DOWNSCALE_S,
            }
        }

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if 0 < self.max_replicas < self.replicas:
            raise ValueError("max_replicas is below replicas")
        return self

    @property
    def job_registry(self) -> str:
        """Where jobs are written down; "" without jobs."""
        if not self.allow_sink:
            return ""
        return self.jobs or f"{self.allow_sink[0].rstrip('/')}/jobs"

    @property
    def processes(self) -> int:
        """Scoring processes that requests and jobs can keep busy, each with a CPU."""
        jobs = self.jobs_at_once * self.job_workers if self.allow_sink else 0
        return self.replicas * len(self.bundles) + jobs

    def check_exposure(self) -> None:
        """Refuse an endpoint that strangers could reach.

        Raises:
            ConfigError: the host is not loopback and there is no token, or the token is too short.
        """
        token = self.token.get_secret_value()
        remedy = f"set {TOKEN_VARIABLE}, e.g. to the output of `openssl rand -hex 32`"
        if not token and not is_loopback(self.host):
            raise ConfigError(
                f"serving on '{self.host}' without a token would let anyone read and score: "
                f"{remedy}, or serve on 127.0.0.1."
            )
        if not token and os.environ.get("RAY_SERVE_ENABLE_HA_PROXY", "0") == "1":
            raise ConfigError(
                "Ray's HAProxy mode (RAY_SERVE_ENABLE_HA_PROXY=1) listens on every network "
                f"interface, whatever the host: {remedy}, or unset that variable."
            )
        if token and len(token) < SHORTEST_TOKEN:
            raise ConfigError(
                f"the token has {len(token)} characters; at least {SHORTEST_TOKEN} are needed: "
                f"{remedy}."
            )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach `host`; a name other than localhost counts as no."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
