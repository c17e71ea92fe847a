"""Real clusters with a dashboard, in a process that ends with its standard input."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

TOKEN = "0123456789abcdef" * 4

_SCRIPT = """
import json, sys
from ray.cluster_utils import Cluster
host, ip, nodes, port = sys.argv[1:]
shared = {"num_cpus": 2, "object_store_memory": 100 * 2**20, "node_ip_address": ip,
          "dashboard_agent_listen_port": 0}
head = {"include_dashboard": True, "dashboard_host": host, "dashboard_port": int(port), **shared}
cluster = Cluster(initialize_head=True, head_node_args=head)
for _ in range(int(nodes) - 1):
    cluster.add_node(**shared)
print(json.dumps([cluster.address, cluster.webui_url]), flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@dataclass(frozen=True)
class RunningCluster:
    """A cluster, and the environment of those who may use it."""

    dashboard: str
    environment: dict[str, str]

    def run(self, *arguments: object, **changed: str) -> subprocess.CompletedProcess[str]:
        """Run `gan-ray` as a user of this cluster."""
        return subprocess.run(
            [sys.executable, "-m", "gan_ray", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=200,
            env={**self.environment, **changed},
        )


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return probe.getsockname()[1]


@contextmanager
def running(*, host: str, ip: str, nodes: int, token: str = "") -> Iterator[RunningCluster]:
    """Start a cluster, whose dashboard listens on `host`, and stop it again."""
    mode = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {}
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", **mode}
    command = [sys.executable, "-c", _SCRIPT, host, ip, str(nodes), str(free_port())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.DEVNULL, env=environment) as process:  # fmt: skip
        said = next((line for line in process.stdout if line.startswith("[")), "")
        assert said, "the cluster did not start"
        address, dashboard = json.loads(said)
        yield RunningCluster(f"http://{dashboard}", {**environment, "RAY_ADDRESS": address})
        process.communicate(timeout=60)


@pytest.fixture(scope="session")
def outward() -> str:
    """An address of this machine that others could reach."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("8.8.8.8", 53))
            return probe.getsockname()[0]
    except OSError:
        pytest.skip("this machine has no address but loopback")


@pytest.fixture(scope="package")
def protected(outward: str, s3_server: str) -> Iterator[RunningCluster]:
    """Two nodes on an outward address that ask for a token."""
    with running(host="0.0.0.0", ip=outward, nodes=2, token=TOKEN) as cluster:
        yield cluster
