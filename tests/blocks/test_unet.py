import pytest
import torch
from torch.nn.functional import avg_pool2d, conv2d, interpolate, leaky_relu, max_pool2d, relu

from gan_ray.blocks.attention import CBAM
from gan_ray.blocks.unet import UNetBlock, UNetCritic, UNetEncoder


def maps(channels: int, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, channels, size, size, generator=generator, dtype=torch.float64)


def conv(layer, inputs, padding):
    return conv2d(inputs, layer.weight, layer.bias, padding=padding)


POOLS = {None: lambda x: x, "max": lambda x: max_pool2d(x, 2), "mean": lambda x: avg_pool2d(x, 2)}


@pytest.mark.parametrize("norm", ["none", "layer", "batch", "plain_instance"])
@pytest.mark.parametrize("preact", [True, False])
@pytest.mark.parametrize("pool", POOLS)
def test_block_is_the_published_sequence(norm, preact, pool):
    block, inputs = UNetBlock(4, 6, norm=norm, preact=preact, pool=pool).double(), maps(4)
    x = block.norm_in(inputs)
    branch = block.norm_out(conv(block.conv_in, relu(x) if preact else x, 1))
    branch = POOLS[pool](conv(block.conv_out, leaky_relu(branch, 0.2), 1))
    shortcut = POOLS[pool](conv(block.shortcut, x, 0))
    torch.testing.assert_close(block(inputs), branch + shortcut)


def test_gates_stand_on_the_branch_before_the_sum():
    block, inputs = UNetBlock(4, 6, norm="none", pool="max", attention=CBAM).double(), maps(4)
    shortcut = max_pool2d(block.shortcut(inputs), 2)
    gates, block.attention = block.attention, torch.nn.Identity()
    torch.testing.assert_close(
        gates(block(inputs) - shortcut) + shortcut, _with(block, gates)(inputs)
    )


def _with(block: UNetBlock, gates: torch.nn.Module) -> UNetBlock:
    block.attention = gates
    return block


def test_without_shortcuts_the_branch_is_all_there_is():
    block, inputs = UNetBlock(4, 4, norm="none").double(), maps(4)
    branch = block(inputs) - inputs
    block.residual = False
    torch.testing.assert_close(block(inputs), branch)


@pytest.mark.parametrize(("wide", "pool", "has"), [(4, None, 0), (6, None, 1), (4, "mean", 1)])
def test_shortcut_is_a_convolution_only_where_the_shape_changes(wide, pool, has):
    block = UNetBlock(4, wide, norm="none", pool=pool)
    assert len(list(block.shortcut.parameters())) == 2 * has


def test_critic_is_the_published_graph():
    critic, images = UNetCritic(3, (4, 6, 8)).double(), maps(3)
    e0 = critic.stem(images)
    e1 = critic.down[0](e0)
    e2 = critic.down[1](e1)
    d1 = critic.up[0](torch.cat([interpolate(e2, scale_factor=2), e1], 1))
    d0 = critic.up[1](torch.cat([interpolate(d1, scale_factor=2), e0], 1))
    seen = critic(images)
    features = leaky_relu(e2, 0.2).mean((2, 3))
    torch.testing.assert_close(seen.global_features, features)
    torch.testing.assert_close(seen.whole, critic.global_head(features).flatten())
    torch.testing.assert_close(seen.pixel_features, d0)
    torch.testing.assert_close(seen.pixels, critic.pixel_head(d0))
    assert not any(block.preact for block in (critic.stem, *critic.up))
    assert all(block.preact for block in critic.down)


def test_sum_pooling_changes_the_head_and_not_the_features():
    mean, total = (UNetCritic(1, (4, 6, 8), pooling=kind).double() for kind in ("mean", "sum"))
    total.load_state_dict(mean.state_dict())
    one, other = mean(maps(1)), total(maps(1))
    torch.testing.assert_close(one.global_features, other.global_features)
    torch.testing.assert_close(total.global_head(one.global_features * 16).flatten(), other.whole)


@pytest.mark.parametrize("attention", [None, CBAM])
@pytest.mark.parametrize("norm", ["none", "layer", "plain_instance"])
def test_critic_judges_each_image_by_itself(norm, attention):
    critic = UNetCritic(1, (4, 6, 8), norm=norm, attention=attention).double().train()
    images = maps(1).requires_grad_(True)
    for part in critic(images):
        (gradient,) = torch.autograd.grad(part[1].sum(), images, retain_graph=True)
        assert not gradient[[0, 2]].any()
        assert gradient[1].any()


@pytest.mark.parametrize(
    ("norm", "sees"), [("none", True), ("layer", True), ("plain_instance", False)]
)
def test_only_instance_norm_makes_the_critic_blind_to_brightness_and_contrast(norm, sees):
    torch.manual_seed(0)
    critic, images = UNetCritic(1, (4, 6, 8), norm=norm).double(), maps(1)
    for one, other in zip(critic(images), critic(0.5 * images + 0.3), strict=True):
        assert ((one - other).abs().max() > 1e-2 * one.abs().max()).item() is sees


def test_encoder_is_a_convolution_blocks_and_a_linear_layer():
    encoder, images = UNetEncoder(3, (4, 6, 8), 4, 5, norm="batch").double(), maps(3)
    wanted = encoder.head(encoder.blocks(encoder.stem(images)).reshape(3, 8 * 16))
    torch.testing.assert_close(encoder(images), wanted)
    assert wanted.shape == (3, 5)
    assert all(block.preact and block.pool == "mean" for block in encoder.blocks)
