"""Machines with addresses of their own on this one: network namespaces that can be cut off.

Namespaces hang on a bridge in a namespace of its own, so nothing touches the host's interfaces.
They share the host's files and processes; needs root and iproute2.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_NAMESPACES = Path("/var/run/netns")
_ETC = Path("/etc/netns")
_NEW_NETWORK = 0x40000000


@dataclass(frozen=True)
class Machine:
    """One namespace with one address."""

    name: str
    address: str
    bridge: str
    """Namespace of the bridge."""
    link: str
    """The bridge's end of this machine's cable."""

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a process here, in a session of its own, with exactly this environment."""
        with log.open("ab") as output:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Let this thread open its sockets here; threads it starts meanwhile stay here."""
        home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        here = os.open(_NAMESPACES / self.name, os.O_RDONLY)
        try:
            _enter(here)
            yield
        finally:
            _enter(home)
            os.close(here)
            os.close(home)

    def pids(self) -> list[int]:
        """Give the processes that run here."""
        found = _ip("netns", "pids", self.name).split()
        return [int(pid) for pid in found if int(pid) != os.getpid()]

    def kill(self) -> None:
        """End every process here at once, as a power cut does."""
        deadline = time.monotonic() + 30
        while pids := self.pids():
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes {pids} on {self.name} do not die")
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)

    def cut(self) -> None:
        """Pull the cable: packets are lost, connections hang."""
        _ip("-n", self.bridge, "link", "set", self.link, "down")

    def heal(self) -> None:
        """Plug the cable in again."""
        _ip("-n", self.bridge, "link", "set", self.link, "up")


def unavailable() -> str:
    """Say why there can be no machines here; empty when there can."""
    if os.geteuid() != 0:
        return "machines as network namespaces need root"
    if shutil.which("ip") is None:
        return "machines as network namespaces need iproute2"
    probe = f"gr{os.getpid()}p"
    try:
        _ip("netns", "add", probe)
        _ip("netns", "del", probe)
    except RuntimeError as error:
        return f"no network namespaces here: {error}"
    return ""


@contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """Give machines that reach one another, and nothing else; all that runs there ends with them.

    Their addresses are 10.77.0.10, 10.77.0.11, ...
    """
    bridge = f"gr{os.getpid()}b"
    made = [
        Machine(f"gr{os.getpid()}n{number}", f"10.77.0.{10 + number}", bridge, f"v{number}")
        for number in range(count)
    ]
    try:
        _ip("netns", "add", bridge)
        _ip("-n", bridge, "link", "add", "br0", "type", "bridge")
        _ip("-n", bridge, "link", "set", "br0", "up")
        for machine in made:
            _connect(machine)
        yield made
    finally:
        for machine in made:
            if (_NAMESPACES / machine.name).exists():
                machine.kill()
                _ip("netns", "del", machine.name)
            shutil.rmtree(_ETC / machine.name, ignore_errors=True)
        if (_NAMESPACES / bridge).exists():
            _ip("netns", "del", bridge)


def _connect(machine: Machine) -> None:
    etc = _ETC / machine.name  # `ip netns exec` lays it over /etc
    etc.mkdir(parents=True)
    (etc / "nsswitch.conf").write_text("hosts: files\n")  # no waiting for a DNS that is not there
    # As Debian installs it: the host's own name leads to loopback, on every machine.
    (etc / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {socket.gethostname()}\n")
    name, bridge, link = machine.name, machine.bridge, machine.link
    _ip("netns", "add", name)
    _ip("link", "add", link, "netns", bridge, "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("-n", bridge, "link", "set", link, "master", "br0", "up")
    _ip("-n", name, "addr", "add", f"{machine.address}/24", "dev", "eth0")
    _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", name, "link", "set", "eth0", "up")
    # Ray finds its own address by asking which interface leads to the world.
    _ip("-n", name, "route", "add", "default", "via", "10.77.0.1")


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
