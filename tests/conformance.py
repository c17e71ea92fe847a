"""The contract as a test class: every architecture passes it by being listed, third parties' too.

Subclass `Conformance` with a fixture `name`; everything runs on the `tiny` preset, on the CPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gan_ray import architectures, experiment
from gan_ray.config import Experiment, from_dict, to_dict
from gan_ray.detector import Batch, Detector, Stage
from gan_ray.errors import ConfigError
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import make_score, offered
from gan_ray.training.latent import prior_codes
from gan_ray.training.loop import Report, fit
from gan_ray.training.state import decode, encode


class SmoothSource:
    """Rows of smooth random images: a pure function of (stream, stage, images), sliced by rank."""

    def __init__(
        self,
        names: tuple[str, ...],
        size: int,
        channels: int,
        dtype=torch.float32,
        classes: int = 1,
    ):
        self.names, self.size, self.channels, self.dtype = names, size, channels, dtype
        self.classes = classes

    def batch(
        self, *, stage: str, images: int, size: int, rank: int, world: int
    ) -> Mapping[str, Tensor]:
        rows = slice(rank * size // world, (rank + 1) * size // world)
        return {name: self._global(f"{name}/{stage}/{images}", size)[rows] for name in self.names}

    def _global(self, key: str, size: int) -> Tensor:
        generator = torch.Generator().manual_seed(sum(map(ord, key)) * 7919 + len(key))
        if key.startswith("class/"):
            return torch.randint(self.classes, (size,), generator=generator)
        coarse = torch.rand(size, self.channels, 4, 4, generator=generator) * 2 - 1
        fine = torch.nn.functional.interpolate(coarse, self.size, mode="bilinear")
        return fine.to(self.dtype)


def tiny(name: str, variant: str = "", **train: Any) -> Experiment[Any]:
    return experiment.make(name, variant=variant, preset="tiny", changes={"train": train})


def source_of(settings: Experiment[Any], dtype=torch.float32) -> SmoothSource:
    streams, data = architectures.get(settings.architecture).streams, settings.data
    return SmoothSource(streams, data.image_size, data.channels, dtype, data.class_count)


def reports(settings: Experiment[Any], resume=None) -> Iterator[tuple[Report, dict[str, bytes]]]:
    detector = experiment.build_detector(settings)
    training = fit(detector, source_of(settings), settings.train, seed=settings.seed, resume=resume)
    for report in training:
        yield report, encode(report.state)


def variants(name: str) -> list[str]:
    return ["", *architectures.get(name).variants]


def batch_of(settings: Experiment[Any], stage: Stage, rows: int) -> Batch:
    streams = source_of(settings).batch(stage=stage.name, images=0, size=rows, rank=0, world=1)
    return Batch(streams, seed=1)


def prepare(detector: Detector, stage: Stage) -> None:
    for network_name, network in detector.networks.items():
        network.train(network_name in stage.trains).requires_grad_(False)


def built_for(name: str, variant: str, preset: str, size: int, channels: int) -> Detector | None:
    """A detector for such images; None where it refuses 28 pixels and says what it allows.

    All else between 28 and 256 pixels must work, in grey and in colour.
    """
    changes = {"data": {"image_size": size, "channels": channels}}
    made = experiment.make(name, variant=variant, preset=preset, changes=changes)
    try:
        return experiment.build_detector(made)
    except ConfigError as refusal:
        said = str(refusal)
    assert size == 28, said
    assert "allowed" in said, said
    assert "--data.image-size" in said, said
    return None


class Conformance:
    """What every architecture must keep."""

    @pytest.fixture
    def settings(self, name: str) -> Experiment[Any]:
        # Four reports per stage or so: short, but long enough for every step to run.
        size = tiny(name).train.batch_size
        return tiny(name, images=size * 24, report_every=size * 6, samples=0)

    @pytest.fixture
    def trained(self, settings: Experiment[Any]) -> list[tuple[Report, dict[str, bytes]]]:
        return list(reports(settings))

    def test_config_survives_the_way_to_a_dict_and_back(self, settings: Experiment[Any]) -> None:
        again = from_dict(experiment.experiment_type(settings.architecture), to_dict(settings))
        assert again == settings

    def test_presets_and_variants_build(self, name: str) -> None:
        detector = architectures.get(name)
        assert {"tiny", "default", "reference"} <= set(detector.presets)
        for preset in detector.presets:
            for variant in variants(name):
                with torch.device("meta"):
                    made = experiment.make(name, variant=variant, preset=preset)
                    assert experiment.build_detector(made).networks

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("size", [28, 32, 64, 128, 256])
    def test_evidence_has_the_shape_of_images_of_every_size(
        self, name: str, size: int, channels: int
    ) -> None:
        for variant in variants(name) if size <= 64 else [""]:
            detector = built_for(name, variant, "tiny", size, channels)
            if detector is None:
                continue
            images = torch.linspace(-1, 1, size).expand(1, channels, size, size)
            kind = torch.zeros(1, dtype=torch.int64) if detector.conditional else None
            with torch.no_grad():
                seen = detector.eval().evidence(images, kind)
            assert seen.reconstruction is None or seen.reconstruction.shape == images.shape
            assert seen.mask is None or seen.mask.shape == (1, 1, size, size)

    @pytest.mark.parametrize("size", [28, 256])
    def test_default_preset_builds_at_the_smallest_and_the_largest_size(
        self, name: str, size: int
    ) -> None:
        with torch.device("meta"):
            detector = built_for(name, "", "default", size, 3)
        assert detector is None or detector.networks

    def test_terms_and_weights_are_the_same_names(self, name: str) -> None:
        terms: set[str] = set()
        for variant in variants(name):
            settings = tiny(name, variant)
            detector = experiment.build_detector(settings)
            for stage in detector.stages():
                prepare(detector, stage)
                for step in stage.steps:
                    for network in step.trains:
                        detector.networks[network].requires_grad_(True)
                    terms |= set(step.loss(batch_of(settings, stage, 4)))
                    detector.requires_grad_(False)
        fields = {field.name for field in dataclasses.fields(settings.model.weights)}
        assert terms == fields

    def test_a_step_sends_gradients_to_what_it_trains_and_nowhere_else(self, name: str) -> None:
        for variant in variants(name):
            settings = tiny(name, variant)
            detector = experiment.build_detector(settings)
            for stage in detector.stages():
                for step in stage.steps:
                    prepare(detector, stage)
                    for network in step.trains:
                        detector.networks[network].requires_grad_(True)
                    sum(step.loss(batch_of(settings, stage, 4)).values()).backward()
                    for network_name, network in detector.networks.items():
                        reached = {k for k, p in network.named_parameters() if p.grad is not None}
                        everything = {k for k, _ in network.named_parameters()}
                        expected = everything if network_name in step.trains else set()
                        assert reached == expected, (stage.name, step.name, network_name)
                    detector.zero_grad()

    def test_shares_add_up_and_stage_names_differ(self, settings: Experiment[Any]) -> None:
        stages = experiment.build_detector(settings).stages()
        assert sum(stage.share for stage in stages) == pytest.approx(1.0)
        assert len({stage.name for stage in stages}) == len(stages)

    def test_frozen_networks_stay_equal_bit_for_bit(self, settings: Experiment[Any]) -> None:
        detector = experiment.build_detector(settings)
        before: dict[str, Tensor] = {}
        entered = ""
        training = fit(detector, source_of(settings), settings.train, seed=settings.seed)
        for report in training:
            frozen = set(detector.networks) - report.stage.trains
            now = {k: v for k, v in detector.networks.state_dict().items()
                   if k.split(".")[0] in frozen}  # fmt: skip
            if entered == report.stage.name:
                assert all(torch.equal(before[key], value) for key, value in now.items())
            entered, before = report.stage.name, {k: v.clone() for k, v in now.items()}

    def test_same_seed_same_bytes(self, settings: Experiment[Any], trained) -> None:
        again = [files for _, files in reports(settings)]
        assert again == [files for _, files in trained]

    def test_another_seed_gives_other_weights(self, settings: Experiment[Any], trained) -> None:
        other = list(reports(dataclasses.replace(settings, seed=settings.seed + 1)))
        assert other[-1][1] != trained[-1][1]

    def test_resuming_from_any_report_changes_nothing(
        self, settings: Experiment[Any], trained
    ) -> None:
        final = trained[-1][1]
        for _, files in trained[:-1]:
            *_, (_, last) = reports(settings, resume=decode(files))
            assert last == final

    def test_training_moves_every_network(self, settings: Experiment[Any], trained) -> None:
        start = experiment.build_detector(settings).networks.state_dict()
        end = trained[-1][0].state.detector.networks
        for network, module in end.items():
            moved = [not torch.equal(start[f"{network}.{k}"], v) for k, v in
                     module.named_parameters()]  # fmt: skip
            assert any(moved), network

    def test_evidence_is_what_was_promised_and_leaves_no_trace(
        self, settings: Experiment[Any]
    ) -> None:
        detector = experiment.build_detector(settings).eval().requires_grad_(False)
        before = {k: v.clone() for k, v in detector.state_dict().items()}
        images = batch_of(settings, detector.stages()[0], 3)["normal"]
        with torch.no_grad():
            evidence = detector.evidence(images)
        assert evidence.offers == detector.offers
        assert all(torch.equal(before[k], v) for k, v in detector.state_dict().items())
        assert all(p.grad is None for p in detector.parameters())

    def test_inference_networks_are_enough(self, settings: Experiment[Any]) -> None:
        detector = experiment.build_detector(settings).eval().requires_grad_(False)
        for network in set(detector.networks) - set(detector.infers):
            del detector.networks[network]
        images = batch_of(settings, detector.stages()[0], 2)["normal"]
        with torch.no_grad():
            assert detector.evidence(images).offers == detector.offers

    def test_a_latent_prior_can_be_drawn_from_by_what_a_bundle_carries(
        self, settings: Experiment[Any], trained
    ) -> None:
        detector = trained[-1][0].state.detector.eval()
        assert (detector.latent is None) == (type(detector).draw is Detector.draw)
        if detector.latent is None:
            return
        codes = prior_codes(detector.latent, 5, seed=0)
        carried = experiment.build_detector(settings).eval()
        carried.load_state_dict(detector.state_dict())
        for network in set(detector.networks) - set(detector.infers):
            del carried.networks[network]
        with torch.no_grad():
            whole = carried.draw(codes)
            alone = torch.cat([detector.draw(code[None]) for code in codes])
            first = detector.draw(codes, torch.zeros(5, dtype=torch.int64))
        size = settings.data.image_size
        assert whole.shape == (5, settings.data.channels, size, size)
        assert whole.abs().max() <= 1
        assert len(whole.unique(dim=0)) == 5
        torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-5)
        assert torch.equal(first, whole)

    def test_score_belongs_to_the_image_alone(self, settings: Experiment[Any], trained) -> None:
        detector = trained[-1][0].state.detector
        rng = np.random.default_rng(0)
        shape = (11, settings.data.channels, settings.data.image_size, settings.data.image_size)
        images = rng.integers(0, 256, shape, dtype=np.uint8)
        images[3:6] //= 7  # some dim ones: statistics over a batch would show
        order = rng.permutation(11)
        for score in offered(detector):
            config = dataclasses.replace(settings.score, name=score)
            made = make_score(config, detector)
            whole = Scorer(detector, made, batch_size=11).score_images(images).scores
            alone = Scorer(detector, made, batch_size=1).score_images(images).scores
            mixed = Scorer(detector, made, batch_size=4).score_images(images[order]).scores
            assert np.isfinite(whole).all()
            assert len(np.unique(whole)) > 1, "a constant score would pass the rest"
            np.testing.assert_allclose(alone, whole, rtol=2e-5)
            np.testing.assert_allclose(mixed, whole[order], rtol=2e-5)
