"""The simulation of docs/scaling.md, and the requests of a report at a real server."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.request_rate import read_all, writes_at_report
from gan_ray import experiment
from gan_ray.training.launch import train
from tests.s3_server import Bucket
from tests.storage.chaos_proxy import chaos


def test_one_reader_waits_for_its_threads_alone():
    found = read_all(1, 1001, threads=10, latency=0.05)
    assert found.seconds == pytest.approx(101 * 0.05)
    assert (found.requests, found.refused, found.failed) == (1001, 0, 0)


def test_a_store_that_is_quick_enough_refuses_nothing():
    found = read_all(50, 40, threads=4, limit=10**9)
    assert (found.requests, found.refused, found.failed) == (50 * 40, 0, 0)


def test_nobody_is_served_faster_than_the_limit():
    found = read_all(64, 100, limit=500, persistent=True)
    assert found.seconds >= (64 * 100 - 500) / 500  # a second's worth may be saved up
    assert found.requests > 64 * 100
    assert found.refused == pytest.approx(1 - 64 * 100 / found.requests)


def test_a_crowd_before_a_slow_store_empties_its_purse():
    assert read_all(512, 200).failed > 0
    assert read_all(8, 200).failed == 0


def test_a_report_makes_the_requests_that_a_server_sees(s3: Bucket, monkeypatch):
    def requests(reports: int) -> Counter[str]:
        changes = {
            "data": {"source": "digits", "normal_class": 1, "image_size": 32},
            "train": {"batch_size": 8, "report_every": 8, "images": 8 * reports,
                      "keep_checkpoints": 1, "select": "last"},
        }  # fmt: skip
        settings = experiment.make("ganomaly", preset="tiny", changes=changes)
        with chaos(s3.endpoint) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
            train(settings, f"{s3.uri}/run{reports}", local=True)
            return Counter(
                "LIST" if "list-type" in line else line.split()[0] for line in proxy.requests
            )

    few, many = requests(3), requests(5)
    extra = {kind: (many[kind] - few[kind]) / 2 for kind in many if many[kind] != few[kind]}
    assert set(extra) == {"PUT", "LIST", "DELETE"}
    assert sum(extra.values()) == writes_at_report(ray=False)
