"""Starts the endpoint on a Ray cluster and stops it again: what `gan-ray serve` does.

Ray reads its environment when it is imported, so it is imported after `connect` has set it.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import pydantic

from gan_ray.cluster import connect
from gan_ray.errors import ClusterError, ConfigError
from serve.card import Card
from serve.proxy import CALLBACK
from serve.settings import AppArgs, is_loopback

NAME = "gan-ray"
LAST_PORT = 65535
PROXY_MARGIN = 5.0  # seconds by which Serve's own deadline is later than ours
VARIABLES = {
    **CALLBACK,
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
}
"""Of Serve's own processes, unless they are set. By default its controller looks after everything
ten times a second, and each process hands on its metrics as often: 2 % of a core that scores."""
QUIET = {"log_level": "WARNING", "enable_access_log": False}


@dataclass(frozen=True)
class Endpoint:
    """A running endpoint; close it, or use it in a `with` block."""

    url: str
    """http://host:port, without a trailing slash."""
    _undo: ExitStack = field(repr=False)

    def close(self) -> None:
        """Answer who is in, then stop what `launch` started: Serve, and Ray unless it ran."""
        self._undo.close()

    def __enter__(self) -> Endpoint:
        """Give itself."""
        return self

    def __exit__(self, *failure: object) -> None:
        """Close."""
        self.close()


def launch(
    bundles: Sequence[str | os.PathLike[str]],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: int = 1,
    max_batch: int | None = None,
    allow: Sequence[str] = (),
    **more: Any,
) -> Endpoint:
    """Serve bundles until the endpoint is closed; returns when it is ready.

    Uses the Ray that this process is connected to, or the one at RAY_ADDRESS, or starts one on this
    machine alone. Port 0 takes a free one. `more` are further fields of `AppArgs`.

    Raises:
        ArtifactError: a bundle is damaged.
        ClusterError: the port is taken, Serve runs already, there are too few CPUs, or the scoring
            processes do not come up.
        ConfigError: a setting or the port is out of range, or strangers could reach the endpoint.
    """
    args = _settings(
        bundles=tuple(os.fspath(bundle) for bundle in bundles),
        host=host,
        replicas=replicas,
        max_batch=max_batch,
        allow=tuple(allow),
        **more,
    )
    args.check_exposure()
    if not 0 <= port <= LAST_PORT:
        raise ConfigError(f"port {port} does not exist: choose one of 0 (any free one) to 65535.")
    port = _free(host, port)
    connected = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    connect()
    import ray
    from ray import serve as ray_serve

    from serve.app import build

    with ExitStack() as undo:
        if not connected:
            undo.callback(ray.shutdown)
        _check_cluster(args)
        application = build(args)
        cards = (Card.of(bundle, args.registry) for bundle in args.bundles)
        deadline = max(card.pace(args).deadline_s for card in cards)
        undo.callback(ray_serve.shutdown)
        try:
            ray_serve.start(
                proxy_location="HeadOnly" if is_loopback(host) else "EveryNode",
                http_options={
                    "host": host,
                    "port": port,
                    "request_timeout_s": deadline + PROXY_MARGIN,
                },
                logging_config=QUIET,
            )
            ingress = ray_serve.run(application, name=NAME, route_prefix="/", logging_config=QUIET)
            undo.callback(_drain, ingress, deadline + PROXY_MARGIN)
        except RuntimeError as error:
            raise ClusterError(f"the endpoint did not come up: {error}") from error
        return Endpoint(f"http://{_reachable(host)}:{port}", undo.pop_all())


def _drain(ingress: Any, seconds: float) -> None:
    """Answer the requests that are in; none is in for longer than its deadline."""
    from ray.exceptions import RayError

    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # it would tell of its router
    with suppress(TimeoutError, RayError):  # a process that died has nobody left to answer
        ingress.drain.remote().result(timeout_s=seconds)


def _settings(**fields: Any) -> AppArgs:
    try:
        return AppArgs(**fields)
    except pydantic.ValidationError as error:
        faults = [f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors()]
        raise ConfigError(f"the endpoint cannot be set up so: {'; '.join(faults)}") from None


def _free(host: str, port: int) -> int:
    """Give the port, or a free one for 0.

    Raises:
        ClusterError: it is taken, or the host is no address of this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            return int(trial.getsockname()[1])
    except OSError as error:
        raise ClusterError(
            f"cannot listen on {host}:{port} ({error.strerror}): choose another --port or --host."
        ) from None


def _reachable(host: str) -> str:
    """Give the host as a client on this machine writes it."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{name}]" if ":" in name else name


def _check_cluster(args: AppArgs) -> None:
    import ray

    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        pass
    else:
        raise ClusterError(
            "Serve runs on this cluster already: stop it (`serve shutdown`), or deploy this "
            "endpoint beside it with `serve deploy` and the import path serve.app:build."
        )
    needed, there = args.processes, ray.cluster_resources()
    if there.get("CPU", 0) < needed:
        jobs = f", and those of {args.jobs_at_once} jobs" if args.allow_sink else ""
        raise ClusterError(
            f"{args.replicas} scoring processes for each of {len(args.bundles)} bundles{jobs} need "
            f"{needed} CPUs, the cluster has {there.get('CPU', 0):g}: lower --replicas or "
            "--job-workers, or add nodes."
        )
