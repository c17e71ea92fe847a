from typing import Any

import numpy as np
import pytest
import torch

from gan_ray.architectures.healthygan import HealthyGAN, HealthyGANConfig
from gan_ray.config import TrainConfig, from_dict
from gan_ray.detector import Batch, ImageSpec, Stage
from gan_ray.errors import ConfigError
from gan_ray.training.loop import fit
from gan_ray.training.state import TrainState
from tests.conformance import SmoothSource


def settings(**model: Any) -> HealthyGANConfig:
    narrow = {"width": 4, "residual_blocks": 1, "critic": {"width": 4, "layers": 3}}
    return from_dict(HealthyGANConfig, {**narrow, **model})


def tiny(size: int = 16, channels: int = 1, **model: Any) -> HealthyGAN:
    torch.manual_seed(0)
    return HealthyGAN(settings(**model), ImageSpec(size, channels)).double()


def batch(rows: int = 3, channels: int = 1, **options: Any) -> Batch:
    generator = torch.Generator().manual_seed(1)
    shape = (rows, channels, 16, 16)
    normal, unlabeled = (
        torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1 for _ in range(2)
    )
    return Batch({"normal": normal, "unlabeled": unlabeled}, seed=5, **options)


def terms(detector: HealthyGAN, step: str) -> dict[str, torch.Tensor]:
    (stage,) = detector.stages()
    (loss,) = (known.loss for known in stage.steps if known.name == step)
    return dict(loss(batch(channels=detector.image.channels)))


def values(detector: HealthyGAN, step: str) -> dict[str, float]:
    return {name: term.item() for name, term in terms(detector, step).items()}


def train(detector: HealthyGAN, ticks: int) -> TrainState:
    source = SmoothSource(detector.streams, 16, 1)
    *_, last = fit(detector, source, TrainConfig(images=4 * ticks, batch_size=4), seed=0)
    return last.state


def weights(detector: HealthyGAN, network: str) -> list[torch.Tensor]:
    return [p.detach().clone() for p in detector.networks[network].parameters()]


def equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


# Published sizes (design, sections 1.1 and 2.1).
@pytest.mark.parametrize(
    ("channels", "generator", "critic"), [(3, 8_417_984, 44_721_088), (1, 8_405_440, 44_719_040)]
)
def test_published_sizes(channels, generator, critic):
    with torch.device("meta"):
        networks = HealthyGAN(HealthyGANConfig(), ImageSpec(64, channels)).networks
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()}
    assert counts == {"generator": generator, "critic": critic}


@pytest.mark.parametrize("size", [64, 128, 192, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_translation_and_mask_keep_size_and_range(size, channels):
    detector = tiny(size, channels, width=2)
    images = torch.rand(1, channels, size, size, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        evidence = detector.evidence(images)
    assert evidence.reconstruction.shape == images.shape
    assert evidence.mask.shape == (1, 1, size, size)
    assert evidence.reconstruction.abs().max() <= 1
    assert evidence.mask.min() >= 0 < evidence.mask.max() <= 1


@pytest.mark.parametrize("size", [4, 30, 63])
def test_a_size_it_cannot_halve_twice_is_refused(size):
    with pytest.raises(ConfigError, match=r"healthygan's generator.*--data\.image-size"):
        tiny(size)


@pytest.mark.parametrize("channels", [1, 3])
def test_generator_terms_are_the_published_equations(channels):
    options = {"focus_size": 2.0, "focus_binary": 0.5}
    detector, x = tiny(channels=channels, **options), batch(channels=channels)
    generator, critic = detector.networks["generator"], detector.networks["critic"]

    def translate(images: torch.Tensor) -> dict[str, np.ndarray]:
        with torch.no_grad():
            raw = generator(images).numpy()
        candidate, mask = np.tanh(raw[:, :channels]), (np.tanh(raw[:, channels:]) + 1) / 2
        healthy = candidate * mask + images.numpy() * (1 - mask)
        with torch.no_grad():
            judged = critic(torch.from_numpy(healthy)).numpy()
        return {
            "candidate": candidate,
            "x_rec": images.numpy() * mask + candidate * (1 - mask),
            "judged": judged.mean(),
            "focus": 2.0 * mask.mean() ** 2
            + 0.5 * ((1 / (np.abs(mask - 0.5) + 0.01)).mean() - 1 / 0.51),
        }

    u, n = translate(x["unlabeled"]), translate(x["normal"])
    assert values(detector, "generator") == pytest.approx(
        {
            "adversarial": -u["judged"],
            "adversarial_normal": -n["judged"],
            "identity": np.abs(x["normal"].numpy() - n["candidate"]).mean(),
            "reconstruction": np.abs(x["unlabeled"].numpy() - u["x_rec"]).mean(),
            "focus": (u["focus"] + n["focus"]) / 2,
        },
        rel=1e-9,
    )


def test_critic_terms_are_the_published_equations():
    detector, x = tiny(critic={"width": 4, "layers": 2}), batch()
    critic = detector.networks["critic"]
    with torch.no_grad():
        fake = detector.evidence(x["unlabeled"]).reconstruction
        distance = critic(fake).mean().item() - critic(x["normal"]).mean().item()
    norms = []
    for real_i, fake_i, share in zip(x["normal"], fake, batch().uniform(), strict=True):
        between = share * real_i + (1 - share) * fake_i
        slope = torch.func.grad(lambda image: critic(image[None]).sum())(between)
        norms.append(slope.norm().item())
    assert values(detector, "critic") == pytest.approx(
        {"discrimination": distance, "gradient_penalty": np.mean((np.array(norms) - 1) ** 2)},
        rel=1e-9,
    )


def test_published_weights_are_the_defaults():
    assert tiny().weights == {
        "discrimination": 1.0,
        "gradient_penalty": 10.0,
        "adversarial": 1.0,
        "adversarial_normal": 1.0,
        "identity": 1.0,
        "reconstruction": 1.0,
        "focus": 0.1,
    }


def test_identity_teaches_the_candidate_and_not_the_mask():
    """Design, section 2.2: the intermediate image is held to n, not h(n)."""
    detector = tiny()
    terms(detector, "generator")["identity"].backward()
    last = detector.networks["generator"].layers[-1].weight.grad
    assert last[0].abs().max() > 0
    assert last[1].abs().max() == 0


def test_reconstruction_is_the_candidate_s_distance_outside_the_mask():
    """Design, section 2.2: mean |u - x_rec(u)| = mean (1 - M) |u - B(u)|."""
    detector, unlabeled = tiny(), batch()["unlabeled"]
    with torch.no_grad():
        blend = detector._blend(unlabeled)
    outside = ((1 - blend.mask) * (unlabeled - blend.candidate).abs()).mean().item()
    assert values(detector, "generator")["reconstruction"] == pytest.approx(outside, rel=1e-9)


def test_a_translated_image_belongs_to_its_own_stream():
    detector, rows = tiny(), batch()
    swapped = Batch({"normal": rows["unlabeled"], "unlabeled": rows["normal"]}, seed=5)
    own, other = (
        {name: term.item() for name, term in detector._generator_loss(each).items()}
        for each in (rows, swapped)
    )
    assert own["adversarial"] == pytest.approx(other["adversarial_normal"], rel=1e-9)
    assert own["focus"] == pytest.approx(other["focus"], rel=1e-9)
    different = {"adversarial", "identity", "reconstruction"}
    assert {name for name in different if own[name] != other[name]} == different


def test_an_image_is_left_alone_where_the_mask_is_empty():
    detector, x = tiny(), batch()["normal"]
    with torch.no_grad():
        evidence = detector.evidence(x)
        changed = (evidence.reconstruction - x).abs()
        candidate = detector._blend(x).candidate
    torch.testing.assert_close(changed, evidence.mask * (candidate - x).abs())


def test_train_and_eval_mode_are_identical():
    detector, x = tiny(), batch()["normal"]
    assert not list(detector.buffers()), "running statistics would tell the modes apart"
    with torch.no_grad():
        trained = detector.train().evidence(x).reconstruction
        assert torch.equal(trained, detector.eval().evidence(x).reconstruction)


def test_critic_step_leaves_generator_untouched():
    detector = tiny()
    train(detector, 1)  # n_critic is 2: one tick is a critic step alone
    fresh = tiny().float()
    assert equal(weights(fresh, "generator"), weights(detector, "generator"))
    assert not equal(weights(fresh, "critic"), weights(detector, "critic"))


class OnlyGenerator(HealthyGAN):
    def stages(self) -> tuple[Stage, ...]:
        (stage,) = super().stages()
        return (Stage("gan", tuple(step for step in stage.steps if step.name == "generator")),)


def test_generator_step_leaves_critic_untouched():
    torch.manual_seed(0)
    detector = OnlyGenerator(settings(), ImageSpec(16, 1))
    generator, critic = weights(detector, "generator"), weights(detector, "critic")
    train(detector, 2)
    assert equal(critic, weights(detector, "critic"))
    assert not equal(generator, weights(detector, "generator"))


def test_ten_batches_are_ten_critic_updates_and_five_generator_updates():
    optimizers = train(tiny(), 10).optimizers
    counts = {
        name: {int(slots["step"]) for slots in optimizer.state.values()}
        for name, optimizer in optimizers.items()
    }
    assert counts == {"critic": {10}, "generator": {5}}


def test_the_announced_schedule_is_a_setting():
    """400,000 updates, the rate falling over the last 100,000: here twenty and five."""
    detector = tiny(generator_optimizer={"lr": 1e-4, "decay_from": 0.75})
    source = SmoothSource(detector.streams, 16, 1)
    ticks = fit(detector, source, TrainConfig(images=80, batch_size=4, report_every=4), seed=0)
    rates = [tick.state.optimizers["generator"].param_groups[0]["lr"] for tick in ticks]
    # The generator steps at even ticks; the eighteenth begins at 0.85, the twentieth at 0.95.
    assert rates == pytest.approx([1e-4] * 17 + [6e-5] * 2 + [2e-5])
