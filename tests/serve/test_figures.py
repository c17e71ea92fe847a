"""What Prometheus would read of an endpoint on Ray Serve."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from serve.launch import launch
from tests.scrape import scraped

SCORE = "/v2/models/film/score"
PNG = {"Content-Type": "image/png"}
DOCS = Path(__file__).resolve().parents[2] / "docs" / "observing.md"
NAMES = {
    "requests_total", "request_failures_total", "images_total", "batch_size", "queue_seconds",
    "decode_seconds", "infer_seconds", "score", "p_value", "alarm_ratio", "queue_depth", "ready",
    "job_objects_total",
}  # fmt: skip


def test_every_name_is_in_the_documentation():
    text = DOCS.read_text()
    assert [name for name in NAMES if f"`ray_gan_ray_{name}`" not in text] == []


@pytest.mark.ray
def test_requests_images_times_scores_and_jobs_are_counted(
    ray_cluster, bundle: Path, store: Path, tmp_path: Path
):
    uris = [str(path) for path in sorted(store.glob("[0-9]*.png"))[:7]]
    out = tmp_path / "Mary-Shelley"
    with (
        launch([bundle], port=0, allow=[str(store)], allow_sink=[str(out)]) as endpoint,
        httpx.Client(base_url=endpoint.url, timeout=60) as client,
    ):
        answers = [client.post(SCORE, json={"uris": uris}) for _ in range(3)]
        assert client.post(SCORE, content=b"Mary", headers=PNG).status_code == 422
        assert client.post("/v2/models/other/score", content=b"").status_code == 404
        assert client.get("/v2/health/ready").status_code == 200
        job = {"model": "film", "source": {"uri": str(store)}, "sink": {"uri": f"{out}/job"},
               "options": {"max_errors": 1}}  # fmt: skip
        name = client.post("/v2/jobs", json=job).json()["id"]
        until = time.monotonic() + 60
        while client.get(f"/v2/jobs/{name}").json()["state"] != "done":
            assert time.monotonic() < until
            time.sleep(0.1)
        while not complete(found := scraped()):
            assert time.monotonic() < until + 60, sorted(found)
            time.sleep(0.5)

    def value(name: str, **wanted: str) -> float:
        return sum(
            value
            for labels, value in found.get(f"gan_ray_{name}", [])
            if wanted.items() <= labels.items()
        )

    film = {"model": "film", "version": "1"}
    assert value("requests_total", code="200", **film) >= 3
    assert value("requests_total", code="422", **film) == 1
    assert value("request_failures_total", reason="decode", **film) == 1
    assert value("request_failures_total", reason="other", model="") == 1
    assert value("images_total", **film) == 21
    assert value("score_count", **film) == 21
    assert value("p_value_count", **film) == 21
    labels = [output["label"] for answer in answers for output in answer.json()["outputs"]]
    assert value("alarm_ratio", **film) == pytest.approx(labels.count("abnormal") / 21)
    assert value("queue_depth", model="film") == 0
    assert value("ready", **film) == 1
    assert value("batch_size_count", model="film") >= 4
    for part in ("queue", "decode", "infer"):
        assert value(f"{part}_seconds_count", **film) == 4
        assert 0 < value(f"{part}_seconds_sum", **film) < 60
    assert value("job_objects_total", model="film", state="scored") == 40
    assert value("job_objects_total", model="film", state="failed") == 1
    assert "Mary" not in "".join(
        text for samples in found.values() for labels, _ in samples for text in labels.values()
    )


def complete(found: dict[str, list[tuple[dict[str, str], float]]]) -> bool:
    """Tell whether the last figures of the test have come to the node."""
    jobs = sum(value for _, value in found.get("gan_ray_job_objects_total", []))
    images = sum(value for _, value in found.get("gan_ray_images_total", []))
    gauges = {f"gan_ray_{name}" for name in ("ready", "alarm_ratio", "queue_depth")}
    return jobs == 41 and images == 21 and gauges <= found.keys()
