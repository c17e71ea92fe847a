import dataclasses

import numpy as np
import pytest
import torch

from gan_ray.architectures.fanogan import FAnoGAN, FAnoGANConfig
from gan_ray.config import TrainConfig, from_dict, merge, to_dict
from gan_ray.detector import Batch, ImageSpec
from gan_ray.errors import ConfigError
from gan_ray.training.loop import fit
from tests.conformance import SmoothSource

MODES = {"izi": {"image"}, "ziz": {"latent"}, "izi_f": {"image", "features"}}


def build(size: int = 16, channels: int = 1, **changes) -> FAnoGAN:
    """A tiny detector whose weights are the same at each call."""
    plain = merge(to_dict(FAnoGANConfig(width=4, latent_size=8)), changes)
    torch.manual_seed(0)
    return FAnoGAN(from_dict(FAnoGANConfig, plain), ImageSpec(size, channels))


def batch(rows: int = 4, size: int = 16, channels: int = 1, dtype=torch.float32) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(rows, channels, size, size, generator=generator, dtype=dtype) * 2 - 1
    return Batch({"normal": images}, seed=3)


def step_of(detector: FAnoGAN, name: str):
    return next(s for stage in detector.stages() for s in stage.steps if s.name == name)


def take(detector: FAnoGAN, name: str, **weights: float) -> None:
    """One optimiser step as the loop takes it: stage modes, gradients for `trains` only."""
    step = step_of(detector, name)
    stage = next(stage for stage in detector.stages() if step in stage.steps)
    for key, network in detector.networks.items():
        network.train(key in stage.trains).requires_grad_(key in step.trains)
    parameters = [p for key in step.trains for p in detector.networks[key].parameters()]
    terms = step.loss(batch())
    total = sum(weights.get(k, detector.weights[k]) * term for k, term in terms.items())
    total.backward()
    torch.optim.SGD(parameters, lr=0.1).step()


def state(detector: FAnoGAN, *names: str) -> dict[str, torch.Tensor]:
    """Parameters and buffers of networks, copied."""
    tensors = detector.networks.state_dict().items()
    return {key: value.clone() for key, value in tensors if key.startswith(names)}


# Published sizes (design, section 5: counted on a rebuild of the authors' networks).
def test_published_configuration_has_the_published_number_of_parameters():
    detector = FAnoGAN(FAnoGANConfig(), ImageSpec(64, 1))
    counts = {
        name: sum(p.numel() for p in network.parameters())
        for name, network in detector.networks.items()
    }
    assert counts == {"generator": 8_539_329, "critic": 7_490_689, "encoder": 8_531_200}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 28, 32, 64, 128, 256])
def test_networks_fit_every_size_of_the_ladder(size, channels):
    detector = build(size, channels).eval()
    images = batch(2, size, channels)["normal"]
    with torch.no_grad():
        evidence = detector.evidence(images)
        assert detector.networks["encoder"](images).shape == (2, 8)
        assert detector.networks["critic"](images).shape == (2, 1)
    root, widest = (7, 16) if size == 28 else (4, 32 if size > 16 else 16)
    assert evidence.reconstruction.shape == images.shape
    assert [f.shape for f in evidence.features["critic"]] == [(2, widest * root**2)] * 2


@pytest.mark.parametrize("size", [4, 30, 100, 250])
def test_sizes_that_cannot_be_halved_to_the_root_are_refused(size):
    with pytest.raises(ConfigError, match="image-size"):
        build(size)


def test_only_the_outermost_convolutions_depend_on_the_channels():
    grey, colour = (build(channels=c).networks.state_dict() for c in (1, 3))
    assert {key for key in grey if grey[key].shape != colour[key].shape} == {
        "generator.head.weight",
        "generator.head.bias",
        "critic.stem.weight",
        "encoder.body.stem.weight",
    }


def test_initial_weights_have_the_published_variances():
    networks = build(size=64, width=32, latent_size=128).networks
    weights = dict(networks.named_parameters())
    for key, variance in {
        "critic.stem.weight": 2 / (9 + 32 * 9),
        "critic.blocks.1.conv_in.weight": 4 / (64 * 9 + 64 * 9),
        "critic.blocks.1.shortcut.weight": 2 / (64 + 128),
        "critic.head.weight": 2 / (4096 + 1),
        "encoder.body.head.weight": 2 / (4096 + 128),
        "generator.stem.weight": 2 / (128 + 4096),
        "generator.head.weight": 4 / (32 * 9 + 9),
    }.items():
        assert weights[key].var().item() == pytest.approx(variance, rel=0.15), key
        assert weights[key].abs().max().item() <= (3 * variance) ** 0.5
    assert not any(p.any() for key, p in weights.items() if key.endswith("bias"))


def test_generated_images_use_both_signs_and_do_not_pile_up_at_zero():
    with torch.no_grad():
        images = build().networks["generator"](torch.randn(16, 8))
    assert images.min() < -0.1
    assert images.max() > 0.1
    assert (images == 0).float().mean() < 0.01


@pytest.mark.parametrize("norm", ["layer", "none"])
@pytest.mark.parametrize("training", [True, False])
def test_critic_judges_each_image_by_itself(norm, training):
    critic = build(critic_norm=norm).networks["critic"].train(training)
    images = batch()["normal"].requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(images)[1].sum(), images)
    assert not gradient[[0, 2, 3]].any()
    assert gradient[1].any()


# Golden values: the published equations in numpy, fed with what the networks answer.
def test_critic_terms_are_those_of_wgan_gp():
    detector, draws, dtype = build().double().eval(), batch(dtype=torch.float64), torch.float64
    critic, real = detector.networks["critic"], draws["normal"]
    with torch.no_grad():
        fake = detector.networks["generator"](draws.gaussian(8))
        mix = draws.uniform().numpy()
        estimate = critic(fake).numpy().mean() - critic(real).numpy().mean()
        penalty = 0.0
        for one, other, share in zip(real, fake, mix, strict=True):
            point, nudge = share * one + (1 - share) * other, 1e-5
            nudges = nudge * torch.eye(256, dtype=dtype).view(256, 1, 16, 16)
            slopes = (critic(point + nudges) - critic(point - nudges)).numpy() / (2 * nudge)
            penalty += (np.sqrt((slopes**2).sum()) - 1) ** 2 / len(real)
    terms = step_of(detector, "critic").loss(batch(dtype=dtype))
    assert set(terms) == {"discrimination", "gradient_penalty"}
    assert terms["discrimination"].item() == pytest.approx(estimate, rel=1e-9)
    assert terms["gradient_penalty"].item() == pytest.approx(penalty, rel=1e-5)


@pytest.mark.parametrize("kind", ["gradient_penalty", "weight_clipping", "spectral_norm", "none"])
def test_each_regulariser_changes_the_critic_and_its_step_alone(kind):
    detector, plain = build(critic_regulariser=kind, clip=0.02), build()
    others, start = (state(each, "generator", "encoder") for each in (plain, detector))
    assert all(torch.equal(others[key], value) for key, value in start.items())
    step, penalised = step_of(detector, "critic"), kind == "gradient_penalty"
    assert set(step.loss(batch())) == {"discrimination", *["gradient_penalty"] * penalised}
    assert step.second_order is penalised
    assert step.clip_weights == (0.02 if kind == "weight_clipping" else 0.0)
    bounded = {key.split(".")[-1] for key in state(detector, "critic")} >= {"original"}
    assert bounded is (kind == "spectral_norm")


@pytest.mark.parametrize("kind", ["weight_clipping", "spectral_norm"])
def test_a_critic_stays_bounded_through_a_training(kind):
    detector = build(critic_regulariser=kind, clip=0.02, n_critic=2, gan_optimizer={"lr": 1e-2})
    train = TrainConfig(images=160, batch_size=8, report_every=160)
    for report in fit(detector, SmoothSource(("normal",), 16, 1), train, seed=0):
        assert all(np.isfinite(value) for value in report.metrics.values())
    critic, generator = detector.networks["critic"], detector.networks["generator"]
    if kind == "weight_clipping":
        assert max(p.abs().max().item() for p in critic.parameters()) == pytest.approx(0.02)
        assert max(p.abs().max().item() for p in generator.parameters()) > 0.1
    else:
        kernel = critic.blocks[0].conv_in.weight.detach().flatten(1)
        assert torch.linalg.matrix_norm(kernel, 2).item() == pytest.approx(1, rel=0.1)
        assert torch.linalg.matrix_norm(critic.head.weight, 2).item() == pytest.approx(1, rel=0.1)


def test_a_clip_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="clip"):
        build(clip=0.0)


def test_generator_term_is_minus_the_mean_judgement():
    detector = build().eval()
    with torch.no_grad():
        fake = detector.networks["generator"](batch().gaussian(8))
        wanted = -detector.networks["critic"](fake).numpy().mean()
    terms = step_of(detector, "generator").loss(batch())
    assert terms.keys() == {"adversarial"}
    assert terms["adversarial"].item() == pytest.approx(wanted, rel=1e-5)


def test_encoder_terms_on_images_are_mean_squares_over_pixels_and_over_features():
    detector, x = build(channels=3).eval(), batch(channels=3)["normal"]
    with torch.no_grad():
        x_hat = detector.networks["generator"](detector.networks["encoder"](x))
        f, f_hat = (detector.networks["critic"].features(i).numpy() for i in (x, x_hat))
        terms = step_of(detector, "encoder").loss(batch(channels=3))
    image = ((x - x_hat).numpy() ** 2).sum() / (4 * 3 * 16 * 16)
    features = ((f - f_hat) ** 2).sum() / (4 * 16 * 4 * 4)
    assert terms["image"].item() == pytest.approx(image, rel=1e-5)
    assert terms["features"].item() == pytest.approx(features, rel=1e-5)


def test_encoder_term_on_codes_is_the_mean_square_over_dimensions():
    detector = build(mode="ziz", latent_bound="linear").eval()
    draws = batch()
    draws.gaussian(8)  # the first draw is the stochastic clip's
    z = draws.gaussian(8)
    with torch.no_grad():
        z_hat = detector.networks["encoder"](detector.networks["generator"](z))
        terms = step_of(detector, "encoder").loss(batch())
    wanted = ((z - z_hat).numpy() ** 2).sum() / (4 * 8)
    assert terms["latent"].item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(("mode", "names"), MODES.items())
def test_each_mode_has_its_terms(mode, names):
    assert set(step_of(build(mode=mode), "encoder").loss(batch())) == names


def test_every_weight_belongs_to_a_term_of_some_mode():
    terms = {"discrimination", "gradient_penalty", "adversarial"}.union(*MODES.values())
    assert {field.name for field in dataclasses.fields(FAnoGANConfig().weights)} == terms


def test_critic_step_trains_the_critic_and_builds_no_generator_graph():
    detector = build()
    detector.networks.requires_grad_(True)
    before = {k: p.clone() for k, p in detector.networks["generator"].named_parameters()}
    sum(step_of(detector, "critic").loss(batch()).values()).backward()
    assert all(p.grad is None for p in detector.networks["generator"].parameters())
    take(detector, "critic")
    for key, parameter in detector.networks["generator"].named_parameters():
        assert torch.equal(parameter, before[key])


def test_generator_step_leaves_the_critic_untouched():
    detector = build()
    before = state(detector, "critic")
    take(detector, "generator")
    assert all(torch.equal(value, before[key]) for key, value in state(detector, "critic").items())
    assert all(p.grad is None for p in detector.networks["critic"].parameters())


@pytest.mark.parametrize("mode", MODES)
def test_encoder_step_changes_no_bit_of_generator_critic_and_their_buffers(mode):
    detector = build(mode=mode)
    frozen, encoder = state(detector, "generator", "critic"), state(detector, "encoder")
    take(detector, "encoder")
    assert all(torch.equal(v, frozen[k]) for k, v in state(detector, "generator", "critic").items())
    assert not any(
        torch.equal(v, encoder[k])
        for k, v in state(detector, "encoder").items()
        if k.endswith("head.weight")
    )


def test_feature_term_alone_reaches_every_parameter_of_the_encoder():
    # The public ports detach the reconstruction here, so that their feature term trains nothing.
    detector = build()
    take(detector, "encoder", image=0.0)
    gradients = {k: p.grad for k, p in detector.networks["encoder"].named_parameters()}
    assert all(g is not None and g.any() for k, g in gradients.items() if "conv_in" not in k)
    assert any(g.any() for k, g in gradients.items() if "conv_in" in k)


def test_stochastic_clip_is_random_in_training_and_fixed_in_scoring():
    detector = build(latent_bound="stochastic_clip").eval()
    with torch.no_grad():
        detector.networks["encoder"].body.head.bias.fill_(5.0)
        first, second = (detector.evidence(batch()["normal"]).reconstruction for _ in range(2))
        drawn = [
            step_of(detector, "encoder").loss(Batch({"normal": batch()["normal"]}, seed=s))["image"]
            for s in (1, 2)
        ]
    assert torch.equal(first, second)
    assert drawn[0] != drawn[1]


def test_stochastic_clip_answers_codes_beyond_three_with_noise_in_the_latent_term():
    detector, draws = build(latent_bound="stochastic_clip", mode="ziz").eval(), batch()
    noise, z = draws.gaussian(8).numpy(), draws.gaussian(8).numpy()
    with torch.no_grad():
        detector.networks["encoder"].body.head.bias.fill_(50.0)
        terms = step_of(detector, "encoder").loss(batch())
    assert terms["latent"].item() == pytest.approx(((z - noise) ** 2).mean(), rel=1e-5)


def test_evidence_is_the_reconstruction_and_the_features_of_both_images():
    detector, images = build().eval(), batch()["normal"]
    with torch.no_grad():
        evidence = detector.evidence(images)
        features = detector.networks["critic"].features
        for pair, image in zip(
            evidence.features["critic"], (images, evidence.reconstruction), strict=True
        ):
            torch.testing.assert_close(pair, features(image))
    assert evidence.offers == FAnoGAN.offers


def test_evidence_of_an_image_does_not_depend_on_its_neighbours():
    detector, images = build().double().eval(), batch(8, dtype=torch.float64)["normal"]
    with torch.no_grad():
        whole = detector.evidence(images)
        alone = detector.evidence(images[5:6])
        order = torch.randperm(8)
        shuffled = detector.evidence(images[order])
    for one, other, third in zip(
        (whole.reconstruction, *whole.features["critic"]),
        (alone.reconstruction, *alone.features["critic"]),
        (shuffled.reconstruction, *shuffled.features["critic"]),
        strict=True,
    ):
        torch.testing.assert_close(one[5:6], other)
        torch.testing.assert_close(one[order], third)


def test_generator_waits_for_n_critic_critic_steps():
    gan, encoder = build(n_critic=3).stages()
    assert {step.name: step.every for step in gan.steps} == {"critic": 1, "generator": 3}
    assert (gan.scores, encoder.scores) == (False, True)
    assert gan.share + encoder.share == pytest.approx(1)


@pytest.mark.parametrize("changes", [*FAnoGAN.variants.values(), *FAnoGAN.presets.values()])
def test_presets_and_variants_fit_the_settings(changes):
    model = merge(to_dict(FAnoGANConfig()), changes.get("model", {}))
    assert to_dict(from_dict(FAnoGANConfig, model)) == model


def test_unknown_norms_for_the_critic_are_refused():
    with pytest.raises(ConfigError, match="critic_norm"):
        build(critic_norm="batch")
