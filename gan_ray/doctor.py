"""`gan-ray doctor`: whether a cluster can do our work, and what to do where it cannot.

`examine` looks (one probe process on every node); the functions named after a check judge.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from gan_ray.cluster import connect
from gan_ray.errors import CheckFailed, ClusterError
from gan_ray.node import NodeFacts, Probe, StoreTrial, beacon, installed, try_store
from serve.settings import TOKEN_VARIABLE, is_loopback

Status = Literal["ok", "warning", "failed"]

PATIENCE = 90.0  # seconds that a node has to answer
SLOW_STORE = 500.0  # ms; a median request beyond it makes checkpoints and scoring wait
SKEW_SEEN, SKEW_REFUSED = 1.0, 300.0  # seconds; S3 refuses requests that are 900 s off
LITTLE_DISK = 10 * 2**30  # bytes
FULL_DISK = 0.05  # share that is free; beyond it Ray writes nothing more to the disk
OPEN_TOKEN = (
    "start every node with RAY_AUTH_MODE=token and one RAY_AUTH_TOKEN (`ray get-auth-token "
    "--generate` makes one), or let no one else reach these ports"
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check saw in one place."""

    check: str
    status: Status
    where: str
    """Address of a node, of a server or of a store; "cluster" for all of it."""
    says: str
    """What is so, or what is wrong."""
    remedy: str = ""
    """What to do; empty when nothing is to be done."""

    def line(self) -> str:
        """Give the finding as text: one line, and one more for the remedy."""
        text = f"{self.status:8} {self.check:14} {self.where}: {self.says}"
        return text + (f"\n{'':24}do: {self.remedy}" if self.remedy else "")


def command(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    """Run the verb; gives 0 when no check failed (warnings included).

    Raises:
        CheckFailed: a check failed.
        ClusterError: no cluster answers at RAY_ADDRESS.
    """
    about = "also write, read, list and delete in this directory or s3://bucket/prefix"
    parser.add_argument("--store", "--storage", default="", metavar="URI", help=about)
    parser.epilog = (
        "The cluster is that of RAY_ADDRESS; without it this machine alone is examined. Exit code: "
        "0 no check failed, 1 one failed, 5 no cluster answers."
    )
    options = parser.parse_args(arguments)
    findings = examine(options.store)
    failed = [finding for finding in findings if finding.status == "failed"]
    if options.json:
        rows = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"ok": not failed, "findings": rows}, indent=1))
    else:
        print("\n".join(finding.line() for finding in findings))
    if failed:
        raise CheckFailed(f"{len(failed)} of {len(findings)} findings are failures: see their do.")
    return 0


def examine(store: str = "") -> list[Finding]:
    """Look at every node of the cluster that RAY_ADDRESS names, or of a private one.

    `store` is a directory or `s3://bucket/prefix`; what is written there is removed again.

    Raises:
        ClusterError: the cluster does not answer.
    """
    connect()
    import ray.exceptions

    try:
        return _look(store)
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"the cluster broke while it was examined: {error}. Try again; `ray status` and the "
            "dashboard tell more."
        ) from None


def _look(store: str) -> list[Finding]:
    import ray

    nodes = ray.nodes()
    findings = [
        Finding("node", "warning", node["NodeManagerAddress"], "is dead", "start it, if missed")
        for node in nodes
        if not node["Alive"]
    ]
    probes = {node["NodeID"]: _probe(node["NodeID"]) for node in nodes if node["Alive"]}
    facts: list[NodeFacts] = []
    clocks: list[Finding] = []
    for node in nodes:
        probe = probes.get(node["NodeID"])
        if probe is None:
            continue
        address = node["NodeManagerAddress"]
        try:
            seen = ray.get(probe.facts.remote(), timeout=PATIENCE)
            clocks.append(clock(address, *_clock(probe)))
        except (ray.exceptions.RayError, TimeoutError) as error:
            del probes[node["NodeID"]]
            findings.append(_unusable(address, error))
        else:
            memory = int(node["Resources"].get("object_store_memory", 0))
            gpus = node["Resources"].get("GPU", 0.0)
            facts.append(
                dataclasses.replace(seen, address=address, object_store=memory, ray_gpus=gpus)
            )
    findings += versions(facts, installed())
    findings += token(facts)
    for name, port, path in _servers():
        asked = zip(probes.values(), facts, strict=True)
        found = ray.get([probe.ask.remote(fact.address, port, path) for probe, fact in asked])
        findings.append(exposure(name, port, {k: v for one in found for k, v in one.items()}))
    findings += [judge(fact) for fact in facts for judge in (gpus_of, shared_memory, disk)]
    findings += clocks
    if store:
        here = try_store(store)
        findings.append(storage("this machine", here))
        if not here.error:
            with beacon(here.uri) as key:
                trials = ray.get([one.try_store.remote(here.uri, key) for one in probes.values()])
            findings += [
                storage(fact.address, one) for fact, one in zip(facts, trials, strict=True)
            ]
    return findings


def versions(facts: Iterable[NodeFacts], ours: Mapping[str, str]) -> list[Finding]:
    """Judge whether all nodes have the versions of this machine, `ours`; builds may differ."""
    findings = []
    for fact in facts:
        other = [
            f"{name} {fact.versions.get(name, 'missing')} instead of {version}"
            for name, version in ours.items()
            if fact.versions.get(name, "missing").partition("+")[0] != version.partition("+")[0]
        ]
        same = ", ".join(f"{name} {version}" for name, version in fact.versions.items())
        remedy = "install the same environment there: `pip install .` with the same constraints"
        findings.append(
            Finding("versions", "failed", fact.address, "; ".join(other), remedy)
            if other
            else Finding("versions", "ok", fact.address, same)
        )
    return findings


def token(facts: Sequence[NodeFacts]) -> list[Finding]:
    """Judge whether every node asks for a token, or can be reached from its own machine alone."""
    findings = []
    for fact in facts:
        if fact.token:
            finding = Finding("token", "ok", fact.address, "Ray asks for a token")
        elif is_loopback(fact.address):
            finding = Finding("token", "ok", fact.address, "off, and Ray is on loopback alone")
        else:
            says = "Ray asks for no token: whoever reaches this node can run code on the cluster"
            finding = Finding("token", "failed", fact.address, says, OPEN_TOKEN)
        findings.append(finding)
    return findings


def exposure(name: str, port: int, answers: Mapping[str, int]) -> Finding:
    """Judge a server by what it answers, without token, at addresses other than loopback."""
    bad = sorted(address for address, status in answers.items() if status not in (401, 403))
    if bad:
        remedy = OPEN_TOKEN if name != "serve" else (
            f"serve with a token ({TOKEN_VARIABLE}) or on 127.0.0.1: Ray's own token does not "
            "protect Serve"
        )  # fmt: skip
        says = f"port {port} answers without a token, on other addresses than loopback"
        return Finding(name, "failed", ", ".join(bad), says, remedy)
    where = ", ".join(sorted(answers)) or "cluster"
    says = "asks for a token" if answers else "is on loopback alone"
    return Finding(name, "ok", where, f"port {port} {says}")


def gpus_of(fact: NodeFacts) -> Finding:
    """Judge whether Ray's GPUs, the driver's and torch's build agree."""
    cpu_build = fact.versions.get("torch", "").endswith("+cpu")
    if not fact.gpus and not fact.ray_gpus:
        return Finding("gpu", "ok", fact.address, "none")
    if not fact.ray_gpus:
        says = f"{len(fact.gpus)} GPUs, none of which Ray offers: {', '.join(fact.gpus)}"
        return Finding("gpu", "warning", fact.address, says, "start the node with --num-gpus")
    if fact.ray_gpus > len(fact.gpus):
        says = f"Ray offers {fact.ray_gpus:g} GPUs, nvidia-smi finds {len(fact.gpus)}"
        remedy = "check the NVIDIA driver, and that the container may use the GPUs"
        return Finding("gpu", "failed", fact.address, says, remedy)
    if cpu_build:
        says = f"torch {fact.versions['torch']} cannot use the GPUs"
        return Finding("gpu", "failed", fact.address, says, "install a CUDA build of torch")
    return Finding("gpu", "ok", fact.address, ", ".join(fact.gpus))


def shared_memory(fact: NodeFacts) -> Finding:
    """Judge whether Ray's object store fits into shared memory."""
    says = (
        f"{_size(fact.shared_memory)} of shared memory, {_size(fact.object_store)} of it for "
        "Ray's objects"
    )
    if fact.shared_memory >= fact.object_store:
        return Finding("shared memory", "ok", fact.address, says)
    remedy = "give the container more (docker --shm-size, a memory volume at /dev/shm)"
    return Finding("shared memory", "failed", fact.address, says, remedy)


def disk(fact: NodeFacts) -> Finding:
    """Judge whether Ray's own folder has room."""
    says = f"{_size(fact.disk_free)} of {_size(fact.disk)} free at {fact.folder}"
    remedy = "make room, or start the node with --temp-dir on a larger disk"
    if fact.disk_free < FULL_DISK * fact.disk:
        return Finding("disk", "failed", fact.address, says, remedy)
    if fact.disk_free < LITTLE_DISK:
        return Finding("disk", "warning", fact.address, says, remedy)
    return Finding("disk", "ok", fact.address, says)


def clock(address: str, ahead: float, uncertainty: float) -> Finding:
    """Judge a node's clock: seconds `ahead` of this machine's, give or take `uncertainty`."""
    says = f"{ahead:+.3f} s against this machine (± {uncertainty:.3f})"
    least = max(0.0, abs(ahead) - uncertainty)
    remedy = "let chrony or ntpd set the clocks of all machines"
    if least > SKEW_REFUSED:
        return Finding("clock", "failed", address, says, remedy + "; S3 will refuse requests")
    if least > SKEW_SEEN:
        return Finding("clock", "warning", address, says, remedy)
    return Finding("clock", "ok", address, says)


def storage(where: str, trial: StoreTrial) -> Finding:
    """Judge what a store answered from one place."""
    if trial.error:
        remedy = "without it there are neither checkpoints nor results; a directory must be shared"
        return Finding("store", "failed", where, trial.error, remedy)
    times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in trial.milliseconds.items())
    says = f"{trial.uri}: {times}"
    if sorted(trial.milliseconds.values())[len(trial.milliseconds) // 2] > SLOW_STORE:
        return Finding("store", "warning", where, says, "use a store nearer to the nodes")
    return Finding("store", "ok", where, says)


def _probe(node: str) -> Any:
    """Start a probe on a node; it takes no CPU, so that a busy cluster can be examined."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return (
        ray.remote(Probe)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        .remote()
    )


def _clock(probe: Any) -> tuple[float, float]:
    """Give (seconds ahead of us, half the round trip) of the quickest of several questions."""
    import ray

    found = []
    for _ in range(5):
        began = time.time()
        there = ray.get(probe.clock.remote(), timeout=PATIENCE)
        half = (time.time() - began) / 2
        found.append((there - began - half, half))
    return min(found, key=lambda one: one[1])


def _servers() -> list[tuple[str, int, str]]:
    """Give (name, port, a path that only strangers are refused) of the HTTP servers that run."""
    import ray
    from ray._private.worker import global_worker

    servers = []
    dashboard = global_worker.node.address_info.get("webui_url")
    if dashboard:
        servers.append(("dashboard", int(dashboard.rpartition(":")[2]), "/api/jobs/"))
    try:
        controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return servers
    http = ray.get(controller.get_http_config.remote(), timeout=PATIENCE)
    return [*servers, ("serve", http.port, "/v2")]


def _unusable(address: str, error: Exception) -> Finding:
    says = f"runs no task of ours: {str(error).strip().splitlines()[-1]}"
    remedy = "install gan-ray there (`pip install .`), and look at the node's log"
    return Finding("node", "failed", address, says, remedy)


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
