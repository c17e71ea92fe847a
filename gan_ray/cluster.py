"""How this project meets Ray: which cluster, with which authentication, with which environment."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from gan_ray import heap, names
from gan_ray.errors import ClusterError
from gan_ray.storage.environment import environment as of_stores

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}


def environment() -> dict[str, str]:
    """Give the variables that workers need: the way to the stores, whether to show names, the heap.

    For `runtime_env={"env_vars": environment()}`: Ray's workers do not inherit the driver's.
    Whoever may inspect the cluster's jobs can read them: protect the cluster with a token.
    """
    return {**heap.environment(), **of_stores(), **names.environment()}


def connect(*, num_cpus: int | None = None) -> None:
    """Connect to the cluster of RAY_ADDRESS, or start one on loopback for this process.

    Does nothing when connected already. Authentication is by token unless RAY_AUTH_MODE says
    otherwise; a private cluster gets a random token that lives as long as the process.

    Raises:
        ClusterError: the cluster does not answer.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS", "local")
    known = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    if address == "local" and os.environ["RAY_AUTH_MODE"] == "token":
        kept = (Path.home() / ".ray" / "auth_token").exists()
        if not kept and not any(name in os.environ for name in known):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    import ray  # after the environment is set: Ray reads it when imported

    if ray.is_initialized():
        return
    # Secrets travel in the job's runtime environment, as Ray's own documentation has it.
    # In a job, what came with the job travels already, and Ray refuses to be told twice.
    told = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env") or {}
    known_to_job = told.get("env_vars") or {}
    runtime_env = {"env_vars": {k: v for k, v in environment().items() if k not in known_to_job}}
    try:
        if address == "local":
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                logging_level="ERROR",
                log_to_driver=False,
                runtime_env=runtime_env,
            )
        else:
            # Workers' own lines stay in the cluster's logs; what matters is told as on one machine.
            ray.init(
                address=address,
                logging_level="ERROR",
                log_to_driver=False,
                runtime_env=runtime_env,
            )
    except Exception as error:  # a node that comes up too slowly is a plain one to Ray
        if address == "local":
            raise ClusterError(
                f"Ray does not start on this machine: {error} Free memory, disk and processors, "
                "or set RAY_ADDRESS to a cluster that runs."
            ) from None
        raise ClusterError(
            f"no Ray cluster answers at {address}: {error}. Check RAY_ADDRESS, that the head runs, "
            "and RAY_AUTH_TOKEN when it asks for a token (a missing token looks the same)."
        ) from None


def patience() -> float:
    """Give the seconds that nodes are waited for: none on a cluster that lives with this process.

    To a cluster named by RAY_ADDRESS nodes may be on their way, or an autoscaler may start them.
    """
    return 0.0 if os.environ.get("RAY_ADDRESS", "local") == "local" else 600.0


def wait_for_room(
    bundle: Mapping[str, float],
    count: int,
    *,
    seconds: float,
    say: Callable[[str], None],
    pause: float = 2.0,
) -> dict[str, float]:
    """Give what the cluster has, once it has `count` times `bundle` or `seconds` are over.

    An autoscaler is asked for it meanwhile, and no longer: what runs then asks for itself.
    """
    import ray
    from ray.autoscaler.sdk import request_resources

    def have() -> dict[str, float]:
        found: dict[str, float] = ray.cluster_resources()
        return found

    def short() -> bool:
        found = have()
        return any(found.get(kind, 0.0) < count * amount for kind, amount in bundle.items())

    if seconds <= 0 or not short():
        return have()
    wanted = ", ".join(f"{count * amount:g} {kind}" for kind, amount in bundle.items())
    say(f"the cluster has no room for {wanted} yet: waiting {seconds:g} s at most for nodes")
    request_resources(bundles=[dict(bundle)] * count)
    try:
        ends = time.monotonic() + seconds
        while short() and time.monotonic() < ends:
            time.sleep(pause)
    finally:
        request_resources(bundles=[])
    return have()
