from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from gan_ray import experiment
from gan_ray.architectures.alad import ALAD, ALADConfig
from gan_ray.config import ScoreConfig, TrainConfig, from_dict
from gan_ray.detector import Batch, Evidence, ImageSpec
from gan_ray.errors import ConfigError
from gan_ray.scoring.scores import make_score
from gan_ray.training.loop import fit
from tests.conformance import SmoothSource

SMALL = {"width": 4, "latent_size": 6, "joint_features": 10, "pair_width": 4}
PLAIN = {"spectral_norm_encoder": False, "spectral_norm_discriminators": False, "dropout": 0.0}
"""Networks that a second pass finds as the first left them, batch norm aside."""


def tiny(size: int = 16, channels: int = 1, **model: Any) -> ALAD:
    torch.manual_seed(0)
    return ALAD(from_dict(ALADConfig, {**SMALL, **model}), ImageSpec(size, channels))


def plain(**model: Any) -> ALAD:
    """In double precision, with weights large enough for logits that differ."""
    detector = tiny(**PLAIN, **model).double().train()
    with torch.no_grad():
        for network in detector.networks.values():
            for parameter in network.parameters():
                parameter.mul_(10)
    return detector


def batch(rows: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(rows, 1, 16, 16, generator=generator, dtype=torch.float64) * 2 - 1
    return Batch({"normal": images}, seed=2)


def passes(detector: ALAD) -> dict[str, torch.Tensor]:
    """Every image and code of a step on `batch()`, with graphs."""
    encoder, generator = detector.networks["encoder"], detector.networks["generator"]
    x, z = batch()["normal"], batch().gaussian(6)
    code, fake = encoder(x), generator(z)
    return {"x": x, "z": z, "E(x)": code, "G(z)": fake,
            "x_hat": generator(code), "z_hat": encoder(fake)}  # fmt: skip


def judged(detector: ALAD, pair: str, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return detector.networks[f"discriminator_{pair}"](first, second)[0]


def entropy(detector: ALAD, pair: str, first: str, second: str, label: int) -> float:
    """l(D(first, second), label) of the paper, in numpy."""
    with torch.no_grad():
        seen = passes(detector)
        logits = judged(detector, pair, seen[first], seen[second]).numpy()
    probability = 1 / (1 + np.exp(-logits))
    return float(-np.log(probability if label else 1 - probability).mean())


def values(terms: Mapping[str, torch.Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


def test_discriminator_terms_are_the_published_equations():
    detector = plain()
    expected = {
        "discrimination_xz": entropy(detector, "xz", "x", "E(x)", 1)
        + entropy(detector, "xz", "G(z)", "z", 0),
        "discrimination_xx": entropy(detector, "xx", "x", "x", 1)
        + entropy(detector, "xx", "x", "x_hat", 0),
        "discrimination_zz": entropy(detector, "zz", "z", "z", 1)
        + entropy(detector, "zz", "z", "z_hat", 0),
    }
    assert len({round(value, 6) for value in expected.values()}) == 3
    assert values(detector._discriminator_loss(batch())) == pytest.approx(expected, rel=1e-9)


def test_generator_terms_are_the_published_equations_with_the_labels_swapped():
    detector = plain()
    expected = {
        "adversarial_xz": entropy(detector, "xz", "x", "E(x)", 0)
        + entropy(detector, "xz", "G(z)", "z", 1),
        "adversarial_xx": entropy(detector, "xx", "x", "x_hat", 1),
        "adversarial_zz": entropy(detector, "zz", "z", "z_hat", 1),
    }
    assert len({round(value, 6) for value in expected.values()}) == 3
    assert values(detector._generator_loss(batch())) == pytest.approx(expected, rel=1e-9)


def test_the_summed_terms_have_the_gradients_of_the_two_published_losses():
    detector = plain()
    networks = detector.networks
    generator = list(networks["generator"].parameters())
    encoder = list(networks["encoder"].parameters())
    joint = torch.autograd.grad(
        sum(detector._generator_loss(batch()).values()), generator + encoder
    )
    seen, softplus = passes(detector), torch.nn.functional.softplus
    cycles = (
        softplus(-judged(detector, "xx", seen["x"], seen["x_hat"])).mean()
        + softplus(-judged(detector, "zz", seen["z"], seen["z_hat"])).mean()
        + softplus(judged(detector, "xx", seen["x"], seen["x"])).mean()
        + softplus(judged(detector, "zz", seen["z"], seen["z"])).mean()
    )
    loss_g = softplus(-judged(detector, "xz", seen["G(z)"], seen["z"])).mean() + cycles
    loss_e = softplus(judged(detector, "xz", seen["x"], seen["E(x)"])).mean() + cycles
    alone = (
        *torch.autograd.grad(loss_g, generator, retain_graph=True),
        *torch.autograd.grad(loss_e, encoder),
    )
    assert any(gradient.abs().max() > 1e-6 for gradient in alone)
    for together, apart in zip(joint, alone, strict=True):
        torch.testing.assert_close(together, apart, rtol=1e-9, atol=1e-14)


def test_each_discriminator_learns_from_its_own_term_alone():
    for pair in ("xz", "xx", "zz"):
        detector = plain()
        detector._discriminator_loss(batch())[f"discrimination_{pair}"].backward()
        reached = {
            key.split(".")[1] for key, p in detector.named_parameters() if p.grad is not None
        }
        assert reached == {f"discriminator_{pair}"}


def test_egbad_has_one_discriminator_and_its_two_terms():
    settings = experiment.make("alad", variant="egbad", preset="tiny")
    detector = experiment.build_detector(settings)
    (stage,) = detector.stages()
    assert list(detector.networks) == ["encoder", "generator", "discriminator_xz"]
    assert stage.ema == detector.infers == ("encoder", "generator", "discriminator_xz")
    images = {"normal": batch()["normal"].float()}
    terms = [set(step.loss(Batch(images))) for step in stage.steps]
    assert terms == [{"discrimination_xz"}, {"adversarial_xz"}]


# Layers by the published table at 32x32x3, biases everywhere, batch norm 2 per channel.
def test_published_sizes_at_32_pixels():
    with torch.device("meta"):
        settings = experiment.make("alad", preset="reference")
        detector = experiment.build_detector(settings)
    counts = {name: sum(p.numel() for p in network.parameters())
              for name, network in detector.networks.items()}  # fmt: skip
    pyramid = 16 * (3 * 128 + 128 * 256 + 256 * 512)
    assert counts == {
        "encoder": pyramid + 3 * (128 + 256 + 512) + 16 * 512 * 100 + 100,
        "generator": 16 * 100 * 512 + pyramid + 3 * (512 + 256 + 128) + 3,
        "discriminator_xz": pyramid + 128 + 3 * (256 + 512)
        + 101 * 512 + 513 * 512 + 8705 * 1024 + 1025,
        "discriminator_xx": 25 * (6 * 64 + 64 * 128) + 64 + 128 + 8193,
        "discriminator_zz": 201 * 64 + 65 * 32 + 33,
    }  # fmt: skip


def test_spectral_norm_is_on_the_published_layers_and_weights_start_narrow():
    names = [key for key, p in tiny().networks.named_parameters() if p.dim() > 1]
    judged_or_encoded = [key for key in names if not key.startswith("generator")]
    free = {key for key in judged_or_encoded if not key.endswith("weight.original")}
    assert len(free) == 4
    assert all(key.endswith(".head.weight") for key in free)
    assert not any(key.endswith("original") for key in names if key.startswith("generator"))
    kernel = tiny(width=32).networks["encoder"].features[0].parametrizations.weight.original
    assert kernel.std().item() == pytest.approx(0.01, rel=0.15)


@pytest.mark.parametrize("size", [8, 30, 100])
def test_a_size_it_cannot_halve_is_refused(size):
    with pytest.raises(ConfigError, match=r"--data\.image-size"):
        tiny(size)


@pytest.mark.parametrize("size", [16, 28, 32, 64, 128, 256])
@pytest.mark.parametrize(("channels", "mode"), [(1, "channel"), (3, "height")])
def test_evidence_has_the_shapes_of_image_and_features_of_twice_the_root(size, channels, mode):
    detector = tiny(size, channels, width=2, max_width=8, pair_mode=mode).eval()
    with torch.no_grad():
        evidence = detector.evidence(torch.rand(2, channels, size, size) * 2 - 1)
    widest = min(4 << max(0, int(np.log2(size)) - 4), 8)
    area = 14**2 if size == 28 else 8**2
    features = (2, widest * area * (1 if mode == "channel" else 2))
    assert evidence.reconstruction.shape == (2, channels, size, size)
    assert [each.shape for each in evidence.features["pair"]] == [features] * 2
    assert evidence.logits["pair"].shape == (2,)


def test_an_image_that_is_its_own_reconstruction_has_no_distance():
    detector = tiny().eval()
    images = batch()["normal"].float()
    for network in ("encoder", "generator"):
        detector.networks[network] = torch.nn.Identity()
    with torch.no_grad():
        evidence = detector.evidence(images)
        scores = [make_score(ScoreConfig(name=name), ALAD)(images, evidence).score
                  for name in ("pair_features", "pair_features_l2", "l1", "l2")]  # fmt: skip
    assert not torch.stack(scores).any()


# By hand. Image minus reconstruction: 3 and -4; features: 1 and -2; logits 0 and ln 3.
EVIDENCE = Evidence(
    reconstruction=torch.tensor([[[[-2.0, 3.0]]], [[[1.0, -1.0]]]]),
    features={"pair": (torch.tensor([[1.0, 0.0], [5.0, 5.0]]),
                       torch.tensor([[0.0, 2.0], [5.0, 5.0]]))},
    logits={"pair": torch.tensor([0.0, np.log(3.0)])},
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", [3.0, 0.0]),
        ("pair_features", [3.0, 0.0]),
        ("pair_features_l2", [np.sqrt(5.0), 0.0]),
        ("pair_logits", [np.log(2.0), np.log(4 / 3)]),  # -log s(logit)
        ("l1", [7.0, 0.0]),
        ("l2", [5.0, 0.0]),
        ("l1_pair_features", [7 + 0.5 * 3, 0.0]),
        ("l1_pair_logits", [7 + 0.5 * np.log(2.0), 0.5 * np.log(4 / 3)]),
    ],
)
def test_scores_are_the_published_equations(name, expected):
    images = torch.tensor([[[[1.0, -1.0]]], [[[1.0, -1.0]]]])
    settings = {"feature_weight": 0.5} if name.startswith("l1_") else {}
    score = make_score(ScoreConfig(name=name, **settings), ALAD)
    scored = score(images, EVIDENCE)
    assert scored.score.tolist() == pytest.approx(expected, abs=1e-6)
    assert scored.map.tolist() == [[[[3.0, 4.0]]], [[[0.0, 0.0]]]]


def test_averaged_weights_score():
    decay, ticks = 0.9, []
    detector = tiny(ema_decay=decay)
    key = "generator.layers.0.weight"
    start = dict(detector.networks.named_parameters())[key].detach().clone()
    settings = TrainConfig(images=24, batch_size=8, report_every=8)
    expected = start
    for report in fit(detector, SmoothSource(("normal",), 16, 1), settings, seed=0):
        live = dict(detector.networks.named_parameters())[key].detach().clone()
        expected = decay * expected + (1 - decay) * live
        with report.state.scoring() as scored:
            used = dict(scored.networks.named_parameters())[key].detach().clone()
        torch.testing.assert_close(used, expected)
        assert not torch.equal(used, live)
        ticks.append(report.images)
    assert ticks == [8, 16, 24]
