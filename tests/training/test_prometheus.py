"""What Prometheus would read from a node while a training runs there."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

import pytest

from gan_ray import experiment
from gan_ray.training import prometheus
from gan_ray.training.launch import train
from gan_ray.training.run import RunFolder
from gan_ray.training.session import WENT_ON
from tests.scrape import scraped

DOCS = Path(__file__).resolve().parents[2] / "docs" / "observing.md"


def digits(images: int):
    return experiment.make(
        "brainomaly",
        preset="tiny",
        changes={
            "data": {"source": "digits", "normal_class": 1, "image_size": 16},
            "train": {
                "images": images, "report_every": 320, "samples": 0, "batch_size": 16,
                "workers": 2,
            },
        },
    )  # fmt: skip


@pytest.mark.ray
def test_a_node_shows_what_its_training_does(ray_cluster, tmp_path):
    settings, run = digits(6400), RunFolder(tmp_path / "Mary-Shelley")
    training = threading.Thread(target=train, args=(settings, run.uri), daemon=True)
    training.start()
    seen: dict[str, list[tuple[dict[str, str], float]]] = {}
    names = {*prometheus.GAUGES, prometheus.LOSS}
    while training.is_alive():  # an endpoint may have left figures of its own on the node
        found = {name: samples for name, samples in scraped().items() if name in names}
        both = {labels["rank"] for labels, _ in found.get("gan_ray_memory_peak_bytes", [])}
        if found.keys() == names and both == {"0", "1"}:
            seen = found
        time.sleep(0.3)
    assert seen, "nothing was shown while it trained"
    for name, samples in seen.items():
        ranks = ["0", "1"] if name == "gan_ray_memory_peak_bytes" else ["0"]
        assert sorted({labels["rank"] for labels, _ in samples}) == ranks, name
        for labels, _ in samples:
            assert labels["run"] == run.get_json("environment.json")["experiment"]
            assert labels["stage"] == "gan"
            assert "Mary" not in "".join(labels.values())

    def value(name: str) -> float:
        ((_, value),) = seen[f"gan_ray_{name}"]
        return value

    rows = {row["images"]: row for row in run.metrics()}
    assert value("images") in rows
    assert value("images_per_second") in {row["images_per_second"] for row in rows.values()}
    assert value("report_seconds") in {row["seconds"] for row in rows.values()}
    sizes = [entry.size for entry in run.store.list("checkpoints/")]
    assert max(sizes) < value("checkpoint_bytes") < sum(sizes)
    assert 0 < value("checkpoint_seconds") < 60
    assert value("restarts") == 0
    assert min(peak for _, peak in seen["gan_ray_memory_peak_bytes"]) > 2**26
    losses = {labels["term"]: loss for labels, loss in seen["gan_ray_loss"]}
    terms = {"critic/discrimination", "critic/gradient_penalty", "generator/adversarial",
             "generator/identity"}  # fmt: skip
    assert set(losses) == terms
    for term, loss in losses.items():
        assert loss in {row[term] for row in rows.values()}


def test_every_name_is_in_the_documentation():
    text = DOCS.read_text()
    for name in (*prometheus.GAUGES, prometheus.LOSS):
        assert f"`ray_{name}`" in text


def test_a_restart_is_told_in_the_log(tmp_path):
    settings = dataclasses.replace(
        digits(960), train=dataclasses.replace(digits(960).train, workers=1)
    )
    run = train(settings, tmp_path / "run", local=True)
    assert not [line for line in run.log() if WENT_ON in line]
    run.store.delete(f"checkpoints/{960:012d}/digest.json")
    train(settings, run.uri, local=True)
    (told,) = (line for line in run.log() if WENT_ON in line)
    assert told.endswith("went on from 640 images\n")
