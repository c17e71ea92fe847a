"""Trials that share what a cluster has: nothing starves, and nothing lies idle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gan_ray.config import TrainConfig
from tune_spaces.tuning import needs

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.ray

FRACTIONS = """
import json, sys
import ray
from gan_ray.config import TrainConfig
from gan_ray.errors import ClusterError
from tests.tune_spaces.test_kills import tiny
from tune_spaces.record import read
from tune_spaces.sweep import sweep
from tune_spaces.tuning import room

ray.init(address="local", num_cpus=8, num_gpus=2, include_dashboard=False,
         object_store_memory=100 * 2**20, _node_ip_address="127.0.0.1",
         logging_level="ERROR", log_to_driver=False)

def fitting(**settings):
    try:
        return room(TrainConfig(use_gpu=True, **settings), None, print, 0.0)
    except ClusterError as error:
        return str(error)

told = {
    "whole": fitting(),
    "halves": fitting(gpus_per_worker=0.5),
    "thirds": fitting(gpus_per_worker=1 / 3),
    "fifths": fitting(gpus_per_worker=0.2),  # 10 by GPU, 8 by CPU
    "two workers": fitting(gpus_per_worker=0.5, workers=2, batch_size=2),
    "asked": room(TrainConfig(use_gpu=True, gpus_per_worker=0.5), 3, print, 0.0),
    "too much": fitting(gpus_per_worker=3),
}
most = []
running = lambda row: most.append(len(read(sys.argv[1])["queue"]["running"]))
sweep([tiny("ganomaly", 160, use_gpu=True, gpus_per_worker=0.5)], samples=8, out=sys.argv[1],
      progress=running)
print("TOLD", json.dumps({**told, "at a time": 1 + max(most)}))
"""

SCARCE = """
import sys, time
import ray
from tests.tune_spaces.test_kills import tiny
from tune_spaces.sweep import sweep

ray.init(address=sys.argv[2], logging_level="ERROR", log_to_driver=False)

@ray.remote(num_cpus=1)
def data():
    time.sleep(5)

busy = [data.remote() for _ in range(4)]  # somebody else's work in the same queue
sweep([tiny("ganomaly", 160, workers=2)], samples=2, out=sys.argv[1])
ray.get(busy)
ray.shutdown()
"""


@pytest.mark.slow
def test_a_fraction_of_a_gpu_lets_several_trials_share_it(tmp_path) -> None:
    """Two GPUs of Ray's books alone: what a trial takes is counted, not used."""
    done = subprocess.run(
        [sys.executable, "-c", FRACTIONS, str(tmp_path)], cwd=ROOT, capture_output=True,
        text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.rpartition("TOLD ")[2])
    assert told.pop("too much").startswith("one trial needs 1 CPU, 3 GPU, the cluster has 8 CPU")
    assert told == {"whole": 2, "halves": 4, "thirds": 6, "fifths": 8, "two workers": 2,
                    "asked": 3, "at a time": 4}  # fmt: skip


def test_a_trial_with_several_workers_holds_nothing_that_they_need() -> None:
    assert "cpu" not in needs(TrainConfig(workers=2, batch_size=2))
    assert needs(TrainConfig()) == {"cpu": 1.0}
    assert needs(TrainConfig(use_gpu=True, gpus_per_worker=0.25)) == {"cpu": 1.0, "gpu": 0.25}


@pytest.mark.slow
def test_two_sweeps_of_two_workers_a_trial_and_other_work_share_two_processors(tmp_path) -> None:
    """Each trial needs both processors: the sweeps take turns, and neither waits for ever."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": True}
    )
    names = ("one", "two")
    sweeps = [
        subprocess.Popen([sys.executable, "-c", SCARCE, str(tmp_path / name), cluster.address],
                         cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for name in names
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=900)[1] for process in sweeps]
        assert [process.returncode for process in sweeps] == [0, 0], said
    finally:
        for process in sweeps:
            process.kill()
        cluster.shutdown()
    for name in names:
        content = json.loads((tmp_path / name / "sweep.json").read_text())
        assert content["queue"]["done"] == 2
        assert {row["state"] for row in content["trials"]} <= {"complete", "pruned"}
