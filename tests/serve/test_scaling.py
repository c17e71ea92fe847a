"""More scoring processes while much is asked."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx
import pytest

from gan_ray.errors import ConfigError
from serve.launch import NAME, launch
from serve.settings import AppArgs

SCORE = "/v2/models/film/score"


def test_the_most_are_not_fewer_than_the_fewest(bundle: Path):
    with pytest.raises(ConfigError, match="max_replicas is below replicas"):
        launch([bundle], port=0, replicas=3, max_replicas=2)
    fixed = AppArgs(bundles=[str(bundle)], replicas=3)
    assert fixed.scaling == {"num_replicas": 3}


@pytest.mark.ray
@pytest.mark.slow
def test_another_process_comes_up_under_load_and_no_request_fails(
    ray_cluster, bundle: Path, store: Path
):
    from ray import serve as ray_serve

    uris = [str(path) for path in sorted(store.glob("[0-9]*.png"))] * 4
    over, statuses = threading.Event(), []

    def running() -> int:
        deployment = ray_serve.status().applications[NAME].deployments["score-film"]
        return deployment.replica_states.get("RUNNING", 0)

    with launch([bundle], port=0, max_replicas=2, allow=[str(store)]) as endpoint:

        def ask() -> None:
            with httpx.Client(base_url=endpoint.url, timeout=60) as client:
                while not over.is_set():
                    response = client.post(SCORE, json={"uris": uris})
                    statuses.append(response.status_code)
                    if response.status_code == 429:
                        time.sleep(float(response.headers["Retry-After"]))

        assert running() == 1
        began = time.monotonic()
        clients = [threading.Thread(target=ask) for _ in range(8)]
        for client in clients:
            client.start()
        until = time.monotonic() + 90
        while running() < 2:
            assert time.monotonic() < until, "it never scaled"
            time.sleep(0.5)
        print(f"the second came after {time.monotonic() - began:.0f} s")
        time.sleep(3)
        over.set()
        for client in clients:
            client.join()
    assert set(statuses) <= {200, 429}
    assert 200 in statuses
