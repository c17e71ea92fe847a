from typing import Any

import numpy as np
import pytest
import torch

from gan_ray import experiment
from gan_ray.architectures.sagan import SAGAN, SAGANConfig
from gan_ray.blocks.foreign_patch import foreign_patch_interpolation
from gan_ray.config import TrainConfig, from_dict
from gan_ray.detector import Batch, ImageSpec, Stage
from gan_ray.errors import ConfigError
from gan_ray.losses.penalties import gradient_penalty
from gan_ray.training.loop import fit
from gan_ray.training.state import TrainState
from tests.conformance import SmoothSource


def settings(**model: Any) -> SAGANConfig:
    narrow = {"width": 2, "residual_blocks": 2, "heads": 2, "critic": {"width": 4, "layers": 3}}
    return from_dict(SAGANConfig, {**narrow, **model})


def tiny(size: int = 32, channels: int = 1, **model: Any) -> SAGAN:
    torch.manual_seed(0)
    return SAGAN(settings(**model), ImageSpec(size, channels))


def rows(count: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    names = ("normal", "unlabeled")
    return {name: torch.rand(count, 1, 32, 32, generator=generator) * 2 - 1 for name in names}


def batch(count: int = 4) -> Batch:
    return Batch(rows(count), seed=5)


def terms(detector: SAGAN, step: str, given: Batch | None = None) -> dict[str, float]:
    (stage,) = detector.stages()
    (loss,) = (known.loss for known in stage.steps if known.name == step)
    return {name: term.item() for name, term in loss(given or batch()).items()}


def train(detector: SAGAN, ticks: int) -> TrainState:
    source = SmoothSource(detector.streams, 32, 1)
    *_, last = fit(detector, source, TrainConfig(images=2 * ticks, batch_size=2), seed=0)
    return last.state


def weights(detector: SAGAN, network: str) -> list[torch.Tensor]:
    return [p.detach().clone() for p in detector.networks[network].parameters()]


def equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


# Design, sections 4.2, 5.2 and 5.3: generator and critic at 64 pixels, one channel.
@pytest.mark.parametrize(
    ("variant", "generator", "critic"),
    [
        ("", 44_758_979, 44_719_040),
        ("reference", 44_758_979, 44_719_040),
        # 16 planes for 3 at three levels; 16 more inputs of the critic's first layer.
        ("custom_sinusoidal", 44_758_979 + 13 * (128 + 256 + 512), 44_719_040 + 16 * 16 * 64),
        # and a table of 4 x 16 at each place.
        ("custom_learned", 44_770_627 + 3 * 64, 44_735_424 + 64),
        # no planes; attention 1,050,624 and its norm 1,024.
        ("custom_rope", 44_756_291 + 1_051_648, 44_719_040),
        ("custom_alibi", 44_756_291 + 1_051_648, 44_719_040),
        ("custom_attention_bias", 44_756_291 + 1_051_648 + 8 * 15**2, 44_719_040),
        ("control_patches", 44_756_291, 44_719_040),
        ("control_whole", 44_756_291, 44_719_040),
        ("control_attention", 44_756_291 + 1_051_648, 44_719_040),
    ],
)
def test_published_sizes(variant, generator, critic):
    with torch.device("meta"):
        networks = experiment.build_detector(experiment.make("sagan", variant=variant)).networks
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()}
    assert counts == {"generator": generator, "critic": critic}


@pytest.mark.parametrize("variant", ["", *SAGAN.variants])
def test_every_variant_translates_within_the_range(variant):
    made = experiment.make("sagan", variant=variant, preset="tiny")
    detector = experiment.build_detector(made).eval()
    with torch.no_grad():
        healthy = detector.evidence(rows()["normal"]).reconstruction
    assert healthy.shape == (4, 1, 32, 32)
    assert healthy.abs().max() <= 1


@pytest.mark.parametrize(
    ("size", "grid"), [(64, 8), (64, 6), (16, 2), (48, 4), (8, 1), (36, 1), (72, 2)]
)
def test_patches_that_do_not_halve_three_times_are_refused(size, grid):
    with pytest.raises(ConfigError, match=r"--data\.image-size .* --model\.patch-grid"):
        tiny(size, patch_grid=grid)


@pytest.mark.parametrize(
    ("model", "option"),
    [
        ({"encoding": "alibi", "heads": 3}, "--model.heads"),
        ({"encoding": "rope", "heads": 8}, "--model.heads"),
        ({"encoding": "sinusoidal", "encoding_channels": 6}, "--model.encoding-channels"),
        ({"encoding": "sinus"}, "Did you mean 'sinusoidal'"),
        ({"backbone": "swin"}, "--model.encoding none"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(model, option):
    with pytest.raises(ConfigError, match=option):
        tiny(**model)


@pytest.mark.parametrize("size", [16, 24, 32])
def test_the_smallest_maps_have_more_than_one_pixel(size):
    detector, images = tiny(size, patch_grid=1), torch.zeros(1, 1, size, size)
    with torch.no_grad():
        assert detector.evidence(images).reconstruction.shape == images.shape


def test_generator_terms_are_the_published_equations():
    detector, x = tiny(), rows()
    generator, critic = detector.networks["generator"], detector.networks["critic"]
    donors = x["normal"][[1, 0, 3, 2]]
    pseudo = foreign_patch_interpolation(
        x["normal"], donors, batch().uniform(4), detector.config.pseudo
    )
    assert (pseudo != x["normal"]).any((1, 2, 3)).all()
    with torch.no_grad():
        healthy = {
            name: np.tanh((images + generator(images)).numpy())
            for name, images in {**x, "pseudo": pseudo}.items()
        }
        judged = critic(torch.from_numpy(healthy["unlabeled"])).numpy()
    normal = x["normal"].numpy()
    assert terms(detector, "generator") == pytest.approx(
        {
            "adversarial": -judged.mean(),
            "identity": np.abs(normal - healthy["normal"]).mean(),
            "restoration": np.square(normal - healthy["pseudo"]).mean(),
        },
        rel=1e-4,
    )


def test_a_donor_is_another_row_and_two_ranks_see_what_one_sees():
    detector, whole = tiny(), rows(4)
    halves = [
        Batch({name: images[2 * rank : 2 * rank + 2] for name, images in whole.items()},
              seed=5, rank=rank, world=2)
        for rank in (0, 1)
    ]  # fmt: skip
    apart = [terms(detector, "generator", half) for half in halves]
    together = terms(detector, "generator")
    for name, value in together.items():
        assert (apart[0][name] + apart[1][name]) / 2 == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("count", [2, 3, 5])
def test_any_batch_of_two_or_more_has_donors(count):
    assert terms(tiny(), "generator", batch(count))["restoration"] > 0


def test_a_row_alone_has_no_donor_and_says_so():
    with pytest.raises(ConfigError, match=r"--train\.batch-size"):
        terms(tiny(), "generator", batch(1))


def test_train_and_eval_mode_are_identical_without_dropout():
    detector, x = tiny(), rows()["normal"]
    with torch.no_grad():
        trained = detector.train().evidence(x).reconstruction
        assert torch.equal(trained, detector.eval().evidence(x).reconstruction)


def test_output_dropout_puts_the_image_for_the_map_and_never_at_test():
    detector, x = tiny(output_dropout=0.1), rows()["normal"]
    with torch.no_grad():
        whole = detector.eval().evidence(x).reconstruction
        assert torch.equal(whole, detector.evidence(x).reconstruction)
        dropped = detector.train().evidence(x).reconstruction
    changed = dropped != whole
    assert changed.float().mean().item() == pytest.approx(0.1, abs=0.02)
    torch.testing.assert_close(dropped[changed], torch.tanh(2 * x)[changed])


@pytest.mark.parametrize("name", ["binary", "sinusoidal", "learned"])
def test_the_critic_sees_the_planes_and_its_penalty_the_image_alone(name):
    detector = tiny(encoding=name, critic_encoding=True, patch_grid=1)
    critic, x = detector.networks["critic"], rows()
    planes = critic.position.feature_map(x["normal"])
    assert planes.shape == (critic.position.channels, 32, 32)
    with torch.no_grad():
        fake = detector.evidence(x["unlabeled"]).reconstruction
    mix = batch().uniform()

    def judge(images):
        return critic.layers(torch.cat((images, planes.expand(4, -1, -1, -1)), 1)).sum((1, 2, 3))

    wanted = gradient_penalty(judge, x["normal"], fake, mix).item()
    assert terms(detector, "critic")["gradient_penalty"] == pytest.approx(wanted, rel=1e-4)


def test_the_critic_is_that_of_brainomaly_where_the_encoding_has_no_planes():
    plain, asked = tiny(), tiny(encoding="alibi", critic_encoding=True)
    shapes = [[p.shape for p in net.networks["critic"].parameters()] for net in (plain, asked)]
    assert shapes[0] == shapes[1]


def test_encodings_of_both_kinds_combine():
    detector = tiny(encoding="binary+rope", patch_grid=1)
    generator = detector.networks["generator"]
    assert generator.down1[-1].position.channels == 3
    assert terms(detector, "generator").keys() == {"adversarial", "identity", "restoration"}


@pytest.mark.parametrize(("position", "index"), [("start", 0), ("middle", 1), ("end", 2)])
def test_attention_stands_where_it_is_asked_for(position, index):
    trunk = tiny(attention=True, attention_position=position).networks["generator"].trunk
    kinds = [type(layer).__name__ for layer in trunk]
    assert kinds.index("SelfAttention2d") == index
    assert len(kinds) == 3


def test_critic_step_leaves_generator_untouched():
    detector = tiny()
    generator, critic = weights(detector, "generator"), weights(detector, "critic")
    train(detector, 1)
    assert equal(generator, weights(detector, "generator"))
    assert not equal(critic, weights(detector, "critic"))


class OnlyGenerator(SAGAN):
    def stages(self) -> tuple[Stage, ...]:
        (stage,) = super().stages()
        return (Stage("gan", tuple(step for step in stage.steps if step.name == "generator")),)


def test_generator_step_leaves_critic_untouched():
    detector = OnlyGenerator(settings(), ImageSpec(32, 1))
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
