"""A bundle at work, without HTTP."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_ray.artifacts.bundle import load_bundle
from serve.model import READERS, Case, Fault, Job, Model
from tests.serve.conftest import png


@pytest.fixture(scope="module")
def model(bundle) -> Iterator[Model]:
    return Model(load_bundle(bundle), batch_size=4)


def test_jobs_scored_together_get_what_each_gets_alone(model):
    jobs = [
        Job(files=(png(1), b"broken", png(2, sixteen=True)), maps=True),
        Job(files=(b"broken",)),
        Job(pixels=np.random.default_rng(0).integers(0, 256, (9, 1, 16, 16), np.uint8)),
        Job(files=(png(3),), reconstructions=True),
    ]
    together = model.score([model.read(job) for job in jobs])
    alone = [model.score([model.read(job)])[0] for job in jobs]
    assert [len(reply.cases) for reply in together] == [3, 1, 9, 1]
    for one, other in zip(together, alone, strict=True):
        for case, twin in zip(one.cases, other.cases, strict=True):
            assert type(case) is type(twin)
            if isinstance(case, Case):
                assert case.score == pytest.approx(twin.score, abs=1e-6)
                assert (case.p_value, case.abnormal) == (twin.p_value, twin.abnormal)


def test_pictures_go_only_to_the_jobs_of_a_batch_that_asked_for_them(model):
    pixels = np.zeros((2, 1, 16, 16), np.uint8)
    jobs = [
        Job(pixels=pixels),
        Job(pixels=pixels, maps=True),
        Job(pixels=pixels, reconstructions=True),
    ]
    for job, reply in zip(jobs, model.score([model.read(job) for job in jobs]), strict=True):
        for case in reply.cases:
            assert isinstance(case, Case)
            assert (case.map is not None) == job.maps
            shown = (case.image is not None, case.reconstruction is not None)
            assert shown == (job.reconstructions,) * 2


def test_the_waiting_time_of_a_job_begins_when_it_is_decoded(model):
    images = dataclasses.replace(model.read(Job(files=(png(),))), since=0.0)
    (reply,) = model.score([images])
    assert reply.timing_ms["queue"] > 1000


def test_a_score_that_is_no_number_becomes_a_fault(bundle):
    model = Model(load_bundle(bundle))
    with torch.no_grad():
        for parameter in model.bundle.detector.parameters():
            parameter.fill_(float("nan"))
    (reply,) = model.score([model.read(Job(files=(png(),)))])
    (case,) = reply.cases
    assert isinstance(case, Fault)
    assert (case.status, case.code) == (500, "MODEL_FAULT")


def test_objects_are_fetched_little_ahead_of_their_decoding(model, tmp_path):
    paths = [str(tmp_path / f"{number:03}.png") for number in range(3 * READERS)]
    for path in paths:
        Path(path).write_bytes(png(1))
    fetched = model._fetched(paths)
    assert next(fetched) == [(path, png(1)) for path in paths[:READERS]]
    time.sleep(0.3)  # time enough for all of them
    Path(paths[-1]).unlink()
    *others, (missing, content) = [one for some in fetched for one in some]
    assert others == [(path, png(1)) for path in paths[READERS:-1]]
    assert missing == paths[-1]
    assert isinstance(content, Fault)
    assert content.code == "NO_OBJECT"
