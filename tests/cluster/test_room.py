"""A sweep on a cluster whose nodes are still to come."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import threading, time
from ray.cluster_utils import Cluster
import ray
from gan_ray.cluster import wait_for_room
from gan_ray.config import TrainConfig
from gan_ray.errors import ClusterError
from tune_spaces.tuning import room

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
said = []
train = TrainConfig(workers=3, batch_size=3)
try:
    room(train, None, said.append, 1.0)
except ClusterError as error:
    print("REFUSED", error)
found = []
waiting = threading.Thread(target=lambda: found.append(room(train, None, said.append, 60.0)))
waiting.start()
while len(said) < 2:
    time.sleep(0.1)
cluster.add_node(num_cpus=6)
waiting.join()
print("ROOM", *found, len(said))
print("SAID", said[0])
print("AT ONCE", room(train, 1, said.append, 60.0), len(said))
ray.shutdown()
cluster.shutdown()
"""


def test_a_sweep_waits_for_nodes_that_join_and_not_for_ever():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=240,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line[:3].isupper())
    assert "one trial needs 3 CPU, the cluster has 1 CPU" in told["REFUSED"]
    assert told["ROOM"] == "2 2"
    assert told["SAID"] == "the cluster has no room for 3 CPU yet: waiting 1 s at most for nodes"
    assert told["AT"] == "ONCE 1 2"
