"""`gan-ray doctor` on real clusters, and its judgements on facts that no test machine has."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from gan_ray import doctor
from gan_ray.node import NodeFacts, beacon, installed, try_store
from gan_ray.storage import open_store
from tests.operating.conftest import RunningCluster, free_port, running

FACTS = NodeFacts(
    address="10.0.0.7",
    versions=installed(),
    token=True,
    gpus=(),
    shared_memory=8 * 2**30,
    folder="/tmp/ray",
    disk=100 * 2**30,
    disk_free=50 * 2**30,
    object_store=4 * 2**30,
)
ACCELERATED = replace(
    FACTS,
    gpus=("A100, 80 GiB",),
    ray_gpus=1.0,
    versions={**FACTS.versions, "torch": "2.13.0+cu126"},
)


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, list[dict[str, str]]]:
    assert "Traceback" not in done.stderr
    found: dict[str, list[dict[str, str]]] = {}
    for row in json.loads(done.stdout)["findings"]:
        found.setdefault(row["check"], []).append(row)
    return found


def test_a_protected_cluster_passes_on_every_node(protected: RunningCluster, s3):
    done = protected.run("doctor", "--json", "--store", s3.uri)
    found = findings(done)
    assert done.returncode == 0, done.stdout
    for check in ("versions", "token", "gpu", "shared memory", "disk", "clock"):
        assert len(found[check]) == 2, check
    assert len(found["store"]) == 3
    assert "asks for a token" in found["dashboard"][0]["says"]
    assert {row["status"] for row in found["token"] + found["clock"]} == {"ok"}
    assert list(open_store(s3.uri).list()) == []


@pytest.mark.slow  # a driver with a wrong token gives up after 20 s
def test_without_its_token_a_protected_cluster_is_an_error_and_no_traceback(protected):
    done = protected.run("doctor", RAY_AUTH_TOKEN="0" * 64)
    assert done.returncode == 5
    assert "RAY_AUTH_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_open_dashboard_and_endpoint_fail_and_are_told_with_their_remedies(outward: str):
    serve = "from ray import serve; serve.start(http_options={'host': '0.0.0.0', 'port': 0})"
    with running(host="0.0.0.0", ip=outward, nodes=1) as cluster:
        command = [sys.executable, "-c", serve.replace("'port': 0", f"'port': {free_port()}")]
        subprocess.run(command, env=cluster.environment, check=True, capture_output=True)
        done = cluster.run("doctor")
        found = findings(cluster.run("doctor", "--json"))
    assert done.returncode == 1
    assert f"failed   dashboard      {outward}:" in done.stdout
    assert "do: start every node with RAY_AUTH_MODE=token" in done.stdout
    assert "GAN_RAY_TOKEN" in found["serve"][0]["remedy"]
    assert {row["status"] for row in found["token"] + found["serve"]} == {"failed"}


def test_a_store_is_tried_and_left_as_it_was(s3, tmp_path):
    for uri in (s3.uri, str(tmp_path)):
        trial = try_store(uri)
        assert (trial.error, set(trial.milliseconds)) == ("", {"write", "read", "list", "delete"})
        assert doctor.storage("here", trial).status == "ok"
    assert not list(tmp_path.iterdir())


def test_a_store_that_is_not_there_fails_with_its_name(s3, tmp_path):
    (tmp_path / "file").write_text("")
    for uri in ("s3://no-such-bucket", str(tmp_path / "file")):
        finding = doctor.storage("here", try_store(uri))
        assert finding.status == "failed"
        assert uri in finding.says


def test_a_directory_that_is_another_one_on_each_machine_fails(tmp_path):
    with beacon(str(tmp_path / "one")) as key:
        assert not try_store(str(tmp_path / "one"), key).error
        assert "not the place" in try_store(str(tmp_path / "two"), key).error


@pytest.mark.parametrize(
    ("judge", "changes", "status"),
    [
        (doctor.gpus_of, {}, "ok"),
        (doctor.gpus_of, {"gpus": ("A100",)}, "warning"),
        (doctor.gpus_of, {"ray_gpus": 1.0}, "failed"),
        (doctor.gpus_of, {"ray_gpus": 1.0, "gpus": ("A100",), "versions": {"torch": "2.13.0+cpu"}},
         "failed"),
        (doctor.shared_memory, {}, "ok"),
        (doctor.shared_memory, {"shared_memory": 64 * 2**20}, "failed"),
        (doctor.disk, {}, "ok"),
        (doctor.disk, {"disk_free": 9 * 2**30}, "warning"),
        (doctor.disk, {"disk_free": 4 * 2**30}, "failed"),
    ],
)  # fmt: skip
def test_a_node_is_judged_by_what_it_has(judge, changes, status):
    finding = judge(replace(FACTS, **changes))
    assert finding.status == status
    assert bool(finding.remedy) == (status != "ok")


def test_gpus_that_agree_are_named():
    assert doctor.gpus_of(ACCELERATED).says == "A100, 80 GiB"


def test_a_node_with_another_version_is_named_with_both():
    other = replace(FACTS, versions={**FACTS.versions, "torch": "1.0"})
    fine, bad = doctor.versions([FACTS, other], FACTS.versions)
    assert (fine.status, bad.status) == ("ok", "failed")
    assert bad.says == f"torch 1.0 instead of {FACTS.versions['torch']}"


def test_another_build_of_the_same_version_is_fine():
    ours = {"torch": "2.13.0+cpu"}
    assert doctor.versions([ACCELERATED], ours)[0].status == "ok"


def test_ray_without_token_is_only_fine_on_loopback():
    places = [replace(FACTS, token=False, address=one) for one in ("127.0.0.1", "10.0.0.7")]
    assert [finding.status for finding in doctor.token(places)] == ["ok", "failed"]


@pytest.mark.parametrize(
    ("answers", "status"),
    [({}, "ok"), ({"10.0.0.7:8000": 401}, "ok"), ({"10.0.0.7:8000": 403}, "ok"),
     ({"10.0.0.7:8000": 200}, "failed"), ({"10.0.0.7:8000": 401, "10.0.0.8:8000": 404}, "failed")],
)  # fmt: skip
def test_a_server_must_refuse_strangers_at_every_address(answers, status):
    assert doctor.exposure("serve", 8000, answers).status == status


@pytest.mark.parametrize(
    ("ahead", "uncertainty", "status"),
    [(0.4, 0.01, "ok"), (-2.0, 0.01, "warning"), (2.0, 1.5, "ok"), (-900.0, 0.01, "failed")],
)
def test_a_clock_is_judged_by_what_is_certain(ahead, uncertainty, status):
    assert doctor.clock("10.0.0.7", ahead, uncertainty).status == status
