"""Jobs on Ray Serve, whose process is really killed at work."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from gan_ray.scoring.batch import read_rows
from gan_ray.storage import open_store
from serve.launch import launch
from tests.scoring.test_score_prefix import fill

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SHARDS = 3
JOBS = "/v2/jobs"


def processes(title: bytes) -> list[int]:
    """Processes of this session's own cluster with such a title."""
    parents, titled = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, stat = (folder / "cmdline").read_bytes(), (folder / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
        if command.startswith(title):
            titled.append(int(folder.name))

    def ours(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return [pid for pid in titled if ours(pid)]


def told(client: httpx.Client, job: str) -> dict:
    """Ask after a job as a patient client does: 503 and 504 pass."""
    response = client.get(job)
    return response.json() if response.status_code == 200 else {"state": response.status_code}


def test_a_killed_process_of_jobs_loses_none_and_doubles_no_row(s3, ray_cluster, bundle: Path):
    source, sink = f"{s3.uri}/in", f"{s3.uri}/out/scores"
    keys = fill(source, 256 * SHARDS + 1)
    open_store(source).put("broken.png", b"no image")
    with (
        launch([bundle], port=0, allow=[source], allow_sink=[f"{s3.uri}/out"]) as endpoint,
        httpx.Client(base_url=endpoint.url, timeout=60) as client,
    ):
        body = {"model": "film", "source": {"uri": source}, "sink": {"uri": sink}}
        answer = client.post(JOBS, json=body, headers={"Idempotency-Key": "night"})
        assert answer.status_code == 202, answer.text
        job = answer.headers["Location"]
        until, killed, last = time.monotonic() + 900, [], {}
        while last.get("state") not in ("done", "failed") and time.monotonic() < until:
            last = told(client, job)
            (pid,) = processes(b"ray::ServeReplica:gan-ray:jobs") or [0]
            if last.get("done") and not killed and last["state"] == "running" and pid:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            time.sleep(0.05)
        assert killed, "it must die at work"
        assert (last["state"], last["error"]) == ("done", None)
        assert (last["total"], last["done"], last["failed"]) == (len(keys) + 1, len(keys) + 1, 1)
        again = client.post(JOBS, json=body, headers={"Idempotency-Key": "night"})
        assert again.headers["Location"] == job
        page = client.get(f"{job}/results?limit=10000")
        assert len(page.text.splitlines()) == len(keys) + 1
    rows = Counter(read_rows(sink)["uri"].to_pylist())
    assert rows == Counter(f"{source}/{key}" for key in ["broken.png", *keys])
    assert not processes(b"ray::ShardScorer"), "nobody goes on after the end"
