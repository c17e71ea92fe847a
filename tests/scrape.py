"""Read a Ray node's metrics as Prometheus would."""

from __future__ import annotations

import re
from urllib.request import urlopen


def scraped() -> dict[str, list[tuple[dict[str, str], float]]]:
    """Give the samples of our metrics on this machine's node, by name; none where it is late."""
    import ray

    (node,) = (node for node in ray.nodes() if node["Alive"])
    port = node["MetricsExportPort"]
    try:
        with urlopen(f"http://{node['NodeManagerAddress']}:{port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:  # the node's agent is late on a busy machine
        return {}
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for line in lines:
        sample = re.fullmatch(r"ray_(gan_ray_\w+)\{(.*)\} (\S+)", line)
        if sample:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', sample[2]))
            found.setdefault(sample[1], []).append((labels, float(sample[3])))
    return found
