"""Precision, memory layout and compilation: options that must not change what is learnt."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gan_ray import architectures, experiment
from gan_ray.training.loop import fit
from tests.conformance import source_of, tiny


def metrics(name: str, dtype: torch.dtype = torch.float32, **train) -> dict[str, float]:
    settings = tiny(name, **train)
    size = settings.train.batch_size
    short = dataclasses.replace(settings.train, images=size * 10, report_every=size * 5)
    detector = experiment.build_detector(settings)
    source = source_of(settings, dtype)
    seen: dict[str, float] = {}
    for report in fit(detector, source, short, seed=1):
        seen |= report.metrics
    return seen


@pytest.mark.parametrize("name", architectures.names())
def test_bfloat16_learns_nearly_the_same(name: str):
    exact, rough = metrics(name), metrics(name, precision="bf16")
    assert exact != rough, "autocast had no effect"
    for term, value in exact.items():
        assert rough[term] == pytest.approx(value, rel=0.1, abs=0.02), term


@pytest.mark.parametrize("name", architectures.names())
def test_channels_last_changes_rounding_only(name: str):
    # In double precision: what rounding does to a critic grows with each step.
    plain, laid_out = (
        metrics(name, torch.float64, precision="fp64", channels_last=last) for last in (False, True)
    )
    # Dropout draws in the order of memory: other masks of the same kind.
    modules = experiment.build_detector(tiny(name)).modules()
    masked = any(isinstance(module, torch.nn.Dropout) for module in modules)
    for term, value in plain.items():
        wanted = pytest.approx(value, rel=5e-2 if masked else 1e-3, abs=1e-4)
        assert laid_out[term] == wanted, term


def test_channels_last_reaches_the_weights():
    settings = tiny("brainomaly", channels_last=True)
    detector = experiment.build_detector(settings)
    next(fit(detector, source_of(settings), settings.train, seed=0))
    weight = detector.networks["critic"].layers[2].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.names())
def test_compiled_networks_learn_the_same(name: str):
    plain, compiled = metrics(name), metrics(name, compile=True)
    for term, value in plain.items():
        assert compiled[term] == pytest.approx(value, rel=1e-3, abs=1e-4), term


GOLDEN: dict[str, dict[str, float]] = {
    "alad": {
        "discriminators/discrimination_xx": 1.37815,
        "discriminators/discrimination_xz": 1.37495,
        "discriminators/discrimination_zz": 1.38557,
        "generator/adversarial_xx": 0.692837,
        "generator/adversarial_xz": 1.39868,
        "generator/adversarial_zz": 0.692778,
    },
    "alocc": {
        "discriminator/discrimination": 1.38809,
        "refiner/adversarial": 0.695191,
        "refiner/refinement": 0.178318,
    },
    "anogan": {"discriminator/discrimination": 1.31998, "generator/adversarial": 0.671643},
    "brainomaly": {
        "critic/discrimination": 3.83475e-05,
        "critic/gradient_penalty": 0.998817,
        "generator/adversarial": -0.00407823,
        "generator/identity": 0.20562,
    },
    "f-anogan": {
        "critic/discrimination": 1.52898,
        "critic/gradient_penalty": 0.221898,
        "encoder/features": 0.489583,
        "encoder/image": 0.32832,
        "generator/adversarial": 2.25969,
    },
    "f-unetgan": {
        "critic/consistency": 0.00109029,
        "critic/discrimination_global": -0.644465,
        "critic/discrimination_pixel": -0.13071,
        "critic/gradient_penalty_global": 0.1168,
        "critic/gradient_penalty_pixel": 0.821664,
        "encoder/features_global": 0.00719002,
        "encoder/features_pixel": 0.0493923,
        "encoder/image": 0.188116,
        "generator/adversarial_global": 0.452626,
        "generator/adversarial_pixel": 0.206737,
    },
    "healthygan": {
        "critic/discrimination": 2.32976e-05,
        "critic/gradient_penalty": 0.998857,
        "generator/adversarial": -0.00409747,
        "generator/adversarial_normal": -0.00412476,
        "generator/focus": 13.2692,
        "generator/identity": 0.408522,
        "generator/reconstruction": 0.22289,
    },
    "ganomaly": {
        "discriminator/discrimination": 0.690908,
        "generator/adversarial": 0.194247,
        "generator/contextual": 0.353152,
        "generator/latent": 0.00839852,
    },
    "ra-ccgan": {
        "critic/discrimination": -0.0661445,
        "critic/gradient_penalty": 1.11512,
        "encoder/features": 0.0211943,
        "encoder/image": 0.184867,
        "generator/adversarial": -4.78436,
    },
    "sagan": {
        "critic/discrimination": -6.09058e-05,
        "critic/gradient_penalty": 0.999111,
        "generator/adversarial": -0.000964592,
        "generator/identity": 0.384651,
        "generator/restoration": 0.238101,
    },
}


@pytest.mark.parametrize("name", architectures.names())
def test_numbers_have_not_changed_by_accident(name: str):
    """A change of these figures needs a sentence in the commit that makes it."""
    found = metrics(name, torch.float64, precision="fp64")
    assert {k: float(f"{v:.6g}") for k, v in found.items()} == pytest.approx(GOLDEN[name], rel=1e-5)
