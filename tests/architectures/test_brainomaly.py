from typing import Any

import numpy as np
import pytest
import torch

from gan_ray.architectures.brainomaly import Brainomaly, BrainomalyConfig
from gan_ray.config import TrainConfig, from_dict
from gan_ray.detector import Batch, ImageSpec, Stage
from gan_ray.errors import ConfigError
from gan_ray.training.loop import fit
from gan_ray.training.state import TrainState
from tests.conformance import SmoothSource


def settings(**model: Any) -> BrainomalyConfig:
    narrow = {"width": 4, "residual_blocks": 1, "critic": {"width": 4, "layers": 3}}
    return from_dict(BrainomalyConfig, {**narrow, **model})


def tiny(size: int = 16, channels: int = 1, **model: Any) -> Brainomaly:
    torch.manual_seed(0)
    return Brainomaly(settings(**model), ImageSpec(size, channels))


def batch(rows: int = 3, channels: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(1)
    shape = (rows, channels, 16, 16)
    normal, unlabeled = (torch.rand(shape, generator=generator) * 2 - 1 for _ in range(2))
    return Batch({"normal": normal, "unlabeled": unlabeled}, seed=5)


def losses(detector: Brainomaly, step: str) -> dict[str, float]:
    (stage,) = detector.stages()
    (loss,) = (known.loss for known in stage.steps if known.name == step)
    return {name: term.item() for name, term in loss(batch()).items()}


def train(detector: Brainomaly, ticks: int) -> TrainState:
    source = SmoothSource(detector.streams, 16, 1)
    *_, last = fit(detector, source, TrainConfig(images=4 * ticks, batch_size=4), seed=0)
    return last.state


def weights(detector: Brainomaly, network: str) -> list[torch.Tensor]:
    return [p.detach().clone() for p in detector.networks[network].parameters()]


def equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


# Published sizes (design, sections 1.1 and 3.1).
@pytest.mark.parametrize(
    ("channels", "generator", "critic"), [(3, 8_408_576, 44_721_088), (1, 8_402_304, 44_719_040)]
)
def test_published_sizes(channels, generator, critic):
    with torch.device("meta"):
        networks = Brainomaly(BrainomalyConfig(), ImageSpec(64, channels)).networks
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()}
    assert counts == {"generator": generator, "critic": critic}


@pytest.mark.parametrize("size", [64, 128, 192, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_translation_keeps_size_and_range(size, channels):
    detector = tiny(size, channels, width=2)
    with torch.no_grad():
        healthy = detector.evidence(torch.rand(1, channels, size, size) * 2 - 1).reconstruction
    assert healthy.shape == (1, channels, size, size)
    assert healthy.abs().max() <= 1


@pytest.mark.parametrize(
    ("size", "layers", "side"), [(64, 6, 1), (192, 6, 3), (256, 6, 4), (16, 6, 1), (28, 6, 1)]
)
def test_critic_is_as_deep_as_the_image_allows(size, layers, side):
    critic = tiny(size, critic={"width": 2, "layers": layers}).networks["critic"]
    assert critic(torch.randn(1, 1, size, size)).shape == (1, 1, side, side)


@pytest.mark.parametrize("size", [4, 30, 63])
def test_a_size_it_cannot_halve_twice_is_refused(size):
    with pytest.raises(ConfigError, match=r"--data\.image-size"):
        tiny(size)


def test_three_maps_need_three_channels():
    colours = torch.rand(1, 3, 16, 16)
    changed = (tiny(16, 3, map_channels=3).networks["generator"])(colours)
    assert changed.shape == (1, 3, 16, 16)
    with pytest.raises(ConfigError, match=r"--model\.map-channels 1"):
        tiny(16, 1, map_channels=3)


def test_generator_terms_are_the_published_equations():
    detector, x = tiny(), batch()
    generator, critic = detector.networks["generator"], detector.networks["critic"]
    with torch.no_grad():
        added = {name: generator(x[name]).numpy() for name in ("normal", "unlabeled")}
        healthy = {name: np.tanh(x[name].numpy() + added[name]) for name in added}
        judged = critic(torch.from_numpy(healthy["unlabeled"])).numpy()
    assert losses(detector, "generator") == pytest.approx(
        {
            "adversarial": -judged.mean(),
            "identity": np.abs(x["normal"].numpy() - healthy["normal"]).mean(),
        },
        rel=1e-4,
    )


def test_critic_terms_are_the_published_equations():
    detector, x = tiny(critic={"width": 4, "layers": 2}), batch()
    critic = detector.networks["critic"]
    with torch.no_grad():
        fake = detector.evidence(x["unlabeled"]).reconstruction
        distance = critic(fake).numpy().mean() - critic(x["normal"]).numpy().mean()
    mix = batch().uniform()
    norms = []
    for real_i, fake_i, share in zip(x["normal"], fake, mix, strict=True):
        between = share * real_i + (1 - share) * fake_i
        slope = torch.func.grad(lambda image: critic(image[None]).sum())(between)
        norms.append(np.linalg.norm(slope.detach().numpy().ravel()))
    assert critic(fake).shape == (3, 1, 4, 4), "the penalty differentiates the sum of a map"
    assert losses(detector, "critic") == pytest.approx(
        {
            "discrimination": distance,
            "gradient_penalty": np.mean((np.array(norms) - 1) ** 2),
        },
        rel=1e-4,
    )


def test_a_penalty_of_the_mean_lets_the_mean_of_a_map_have_slope_one():
    detector = tiny(critic={"width": 4, "layers": 2, "penalty": "mean"})
    critic, x = detector.networks["critic"], batch()["normal"]
    norms = []
    for image in x:
        slope = torch.func.grad(lambda image: critic(image[None]).mean())(image)
        norms.append(slope.norm().item())
    with torch.no_grad():
        detector._healthy = lambda images: x  # so that every point between is a normal image
    penalty = detector._critic_loss(batch())["gradient_penalty"].item()
    assert penalty == pytest.approx(np.mean((np.array(norms) - 1) ** 2), rel=1e-4)


def test_real_images_are_normal_and_translated_ones_unlabeled():
    detector = tiny()
    rows = batch()
    swapped = Batch({"normal": rows["unlabeled"], "unlabeled": rows["normal"]}, seed=5)
    terms, others = (detector._critic_loss(each)["discrimination"] for each in (rows, swapped))
    assert terms != others


def test_train_and_eval_mode_are_identical():
    detector, x = tiny(), batch()["normal"]
    assert not list(detector.buffers()), "running statistics would tell the modes apart"
    with torch.no_grad():
        trained = detector.train().evidence(x).reconstruction
        assert torch.equal(trained, detector.eval().evidence(x).reconstruction)


def test_critic_step_builds_no_generator_graph():
    detector = tiny()
    sum(detector._critic_loss(batch()).values()).backward()
    assert all(p.grad is None for p in detector.networks["generator"].parameters())
    assert all(p.grad is not None for p in detector.networks["critic"].parameters())


def test_critic_step_leaves_generator_untouched():
    detector = tiny()
    generator, critic = weights(detector, "generator"), weights(detector, "critic")
    train(detector, 1)
    assert equal(generator, weights(detector, "generator"))
    assert not equal(critic, weights(detector, "critic"))


class OnlyGenerator(Brainomaly):
    def stages(self) -> tuple[Stage, ...]:
        (stage,) = super().stages()
        return (Stage("gan", tuple(step for step in stage.steps if step.name == "generator")),)


def test_generator_step_leaves_critic_untouched():
    detector = OnlyGenerator(settings(), ImageSpec(16, 1))
    generator, critic = weights(detector, "generator"), weights(detector, "critic")
    train(detector, 2)
    assert equal(critic, weights(detector, "critic"))
    assert not equal(generator, weights(detector, "generator"))


@pytest.mark.parametrize(("n_critic", "updates"), [(1, 10), (2, 5), (5, 2)])
def test_ten_batches_are_ten_critic_updates_and_one_generator_update_for_each_n(n_critic, updates):
    optimizers = train(tiny(n_critic=n_critic), 10).optimizers
    counts = {
        name: {int(slots["step"]) for slots in optimizer.state.values()}
        for name, optimizer in optimizers.items()
    }
    assert counts == {"critic": {10}, "generator": {updates}}


def test_an_untouched_image_scores_zero_only_with_logit_sum():
    x = batch()["normal"]
    for link, residual in (("tanh_sum", 0.066), ("logit_sum", 0.0)):
        detector = tiny(residual_link=link)
        detector.networks["generator"].layers[-1].weight.data.zero_()
        with torch.no_grad():
            changed = (detector.evidence(x).reconstruction - x).abs().mean().item()
        assert changed == pytest.approx(residual, abs=5e-3)
