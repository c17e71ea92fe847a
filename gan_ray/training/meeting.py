"""How the workers of a training find one another: by the addresses under which Ray knows them."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

import ray.util
from ray.train.torch import TorchConfig

_GET_ADDRESS = 0x8915  # SIOCGIFADDR


@dataclass
class Meeting(TorchConfig):  # type: ignore[misc]  # Ray is untyped
    """Ray's process group, on the network that Ray itself uses.

    Gloo listens where the host's name leads, which is loopback on a plain Debian: workers on other
    nodes then find nobody. GLOO_SOCKET_IFNAME in a node's environment still decides.
    """

    @property
    def backend_cls(self) -> Any:
        """Ray's backend, after each worker has learned its interface."""
        return _Backend


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]  # Ray exports no other name
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_choose_interface)
        super().on_start(worker_group, backend_config)


def _choose_interface() -> None:
    name = interface(ray.util.get_node_ip_address())
    if name:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def interface(address: str) -> str:
    """Name the network interface with an IPv4 address; empty when none has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                request = struct.pack("256s", name.encode())
                answer = fcntl.ioctl(probe.fileno(), _GET_ADDRESS, request)
            except OSError:  # it has no IPv4 address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return ""
