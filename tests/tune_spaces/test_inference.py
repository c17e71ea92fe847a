"""What a detector costs in use: of the networks that it needs there."""

from __future__ import annotations

import pytest
import torch

from gan_ray import architectures
from gan_ray.experiment import build_detector, make
from tune_spaces.inference import cost_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", architectures.names())
def test_parameters_are_those_of_a_bundle(name: str) -> None:
    experiment = make(name, preset="tiny")
    detector = build_detector(experiment)
    shipped = {p for n in detector.infers for p in detector.networks[n].parameters()}
    found = cost_of(experiment, "parameters", CPU)
    assert found == sum(p.numel() for p in shipped)
    assert 0 < found <= sum(p.numel() for p in detector.parameters())


def test_a_wider_detector_takes_longer_and_has_more_parameters() -> None:
    digits = {"image_size": 32}
    narrow, wide = (
        make("ganomaly", preset="tiny", changes={"data": digits, "model": {"width": width}})
        for width in (2, 64)
    )
    for cost in ("latency", "parameters"):
        assert 0 < cost_of(narrow, cost, CPU) < cost_of(wide, cost, CPU)


def test_the_latency_of_a_scaled_and_of_a_class_conditional_score_can_be_taken() -> None:
    classes = {"model": {"label_policy": "known"}, "data": {"class_count": 3, "classes": "source"}}
    for experiment in (make("f-unetgan", preset="tiny"),
                       make("ra-ccgan", preset="tiny", changes=classes)):  # fmt: skip
        assert cost_of(experiment, "latency", CPU) > 0
