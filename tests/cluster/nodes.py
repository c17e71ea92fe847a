"""A Ray cluster of several machines, each of which can be killed, started again and cut off."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.machines import Machine, machines

_ROOT = Path(__file__).resolve().parents[2]
_RAY = (sys.executable, "-m", "ray.scripts.scripts")
_PORT = 6379

FAST = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
}
"""Makes Ray notice a lost node within about 5 s, not 15, and leaves out what tests do not see."""

_IDLE = """
import ray, sys, time
ray.init(log_to_driver=False, logging_level="ERROR")
while not {ray.cluster_resources().get("CPU"), ray.available_resources().get("CPU")} == {
    float(sys.argv[1])
}:
    time.sleep(0.2)
"""


@dataclass
class Nodes:
    """The head, which drivers run on and no drill kills, the nodes, and a machine without Ray."""

    head: Machine
    nodes: list[Machine]
    outside: Machine
    """For servers and clients that are no part of the cluster."""
    folder: Path
    """Logs and Ray's own files; short, since sockets lie below it."""
    environment: dict[str, str]
    """Of every process that is started here."""
    cpus: Mapping[str, int] = field(default_factory=dict)
    """CPUs by machine where it is not 1."""

    @property
    def address(self) -> str:
        """RAY_ADDRESS for drivers."""
        return f"{self.head.address}:{_PORT}"

    def start(self, *chosen: Machine, dashboard: bool = False) -> None:
        """Start Ray on machines, the head first when it is among them; wait until it is up."""
        if self.head in chosen:
            _wait(*self._begin(self.head, dashboard))
        others = [machine for machine in chosen if machine is not self.head]
        for machine, begun in [(machine, self._begin(machine)) for machine in others]:
            try:
                _wait(*begun)
            except RuntimeError:  # now and then the head does not see a node that comes back
                machine.kill()
                _wait(*self._begin(machine))

    def _begin(
        self, machine: Machine, dashboard: bool = False
    ) -> tuple[subprocess.Popen[bytes], Path]:
        log = self.log(machine)
        log.unlink(missing_ok=True)
        command = [
            *_RAY, "start", "--block", "--disable-usage-stats",
            "--node-ip-address", machine.address,
            "--num-cpus", str(self.cpus.get(machine.name, 1)),
            "--object-store-memory", str(100 * 2**20),
            "--temp-dir", str(self.folder / machine.name),
        ]  # fmt: skip
        if machine is self.head:
            command += ["--head", "--port", str(_PORT)]
            command += ["--include-dashboard", str(dashboard).lower()]
            command += ["--dashboard-host", "0.0.0.0"] if dashboard else []
        else:
            command += ["--address", self.address]
        return machine.start(command, self.environment, log), log

    def log(self, machine: Machine) -> Path:
        """Give the file that Ray's start on a machine writes to."""
        return self.folder / f"{machine.name}.log"

    def run(
        self,
        *arguments: str,
        on: Machine | None = None,
        log: str = "driver",
        **variables: str,
    ) -> subprocess.Popen[bytes]:
        """Start a `gan-ray` command as a driver, on the head unless said otherwise."""
        return self.python(
            "-m", "gan_ray", *arguments, on=on, log=log, RAY_ADDRESS=self.address, **variables
        )

    def python(
        self, *arguments: str, on: Machine | None = None, log: str = "driver", **variables: str
    ) -> subprocess.Popen[bytes]:
        """Start Python somewhere; its output goes to `log` in the folder."""
        machine = self.head if on is None else on
        environment = {**self.environment, **variables}
        command = [sys.executable, *arguments]
        return machine.start(command, environment, self.folder / f"{log}.log")

    def said(self, log: str = "driver") -> str:
        """Give what a command has printed."""
        return (self.folder / f"{log}.log").read_text(errors="replace")

    def until_idle(self, cpus: int) -> None:
        """Wait until Ray knows of so many CPUs and nothing has any of them."""
        looking = self.python("-c", _IDLE, str(cpus), log="idle", RAY_ADDRESS=self.address)
        assert finish(looking, 120) == 0, self.said("idle")

    def workers(self) -> dict[int, Machine]:
        """Give the processes of Ray Train's workers, each with the machine it runs on."""
        found = {}
        for machine in (self.head, *self.nodes):
            for pid in machine.pids():
                if _title(pid).startswith("ray::") and "RayTrainWorker" in _title(pid):
                    found[pid] = machine
        return found


@contextmanager
def ray_nodes(
    count: int,
    *,
    dashboard: bool = False,
    head_cpus: int = 1,
    environment: Mapping[str, str] = FAST,
) -> Iterator[Nodes]:
    """Give a running cluster of a head and `count` nodes of 1 CPU each."""
    folder = Path(tempfile.mkdtemp(prefix="gr-", dir="/tmp"))
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    everywhere = {
        **inherited,
        "PYTHONPATH": str(_ROOT),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "60",  # a busy machine
        "RAY_worker_niceness": "0",  # Ray's 15 starves workers beside whatever else runs here
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        "NO_COLOR": "1",
        "PYTHONUNBUFFERED": "1",
        **environment,
    }
    try:
        with machines(count + 2) as made:
            head, *others, outside = made
            nodes = Nodes(head, others, outside, folder, everywhere, {head.name: head_cpus})
            nodes.start(head, *others, dashboard=dashboard)
            yield nodes
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def finish(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Wait for the end of a process and give its exit code."""
    return process.wait(timeout=seconds)


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _wait(process: subprocess.Popen[bytes], log: Path, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if b"Ray runtime started." in log.read_bytes():
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"Ray did not start: {log.read_text()}")
