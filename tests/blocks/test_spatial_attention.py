from functools import partial

import pytest
import torch

from gan_ray.blocks.encodings import Site, make_encoding
from gan_ray.blocks.self_attention import SelfAttention2d
from gan_ray.blocks.spatial_attention import (
    FuseBlock,
    GatedUp,
    PositionConditioning,
    SpatialAttentionGenerator,
)


def encoding(name: str, side: int, **site):
    return make_encoding(name, Site(**{"side": side, "channels": 4, **site}))


def generator(name: str = "binary", size: int = 32, **options) -> SpatialAttentionGenerator:
    torch.manual_seed(0)
    made = SpatialAttentionGenerator(
        options.pop("channels", 1), size, width=4, blocks=2, position=partial(encoding, name),
        **options,
    )  # fmt: skip
    return made.double()


def images(size: int = 32, channels: int = 1) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(1)
    return torch.rand(2, channels, size, size, generator=drawn, dtype=torch.float64) * 2 - 1


# Published size (design, section 4.2). Without codes: 3 planes fewer at 3 levels. With colours: 4
# more channels of the 7x7 convolutions.
@pytest.mark.parametrize(
    ("name", "channels", "parameters"),
    [("binary", 1, 44_758_979), ("none", 1, 44_756_291), ("binary", 3, 44_771_523)],
)
def test_published_sizes(name, channels, parameters):
    with torch.device("meta"):
        made = SpatialAttentionGenerator(channels, 64, position=partial(encoding, name))
    assert sum(p.numel() for p in made.parameters()) == parameters


@pytest.mark.parametrize("size", [64, 96, 128])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("grid", [1, 2, 4])
def test_it_keeps_the_size(size, channels, grid):
    with torch.no_grad():
        raw = generator(size=size, channels=channels, grid=grid)(images(size, channels))
    assert raw.shape == (2, channels, size, size)


def test_patches_do_not_see_each_other():
    network, x = generator(), images()
    other = x.clone()
    other[:, :, 16:, :16] = 0
    with torch.no_grad():
        changed = (network(x) != network(other)).any(0)[0]
    assert changed[16:, :16].any()
    changed[16:, :16] = False
    assert not changed.any()


def test_an_image_does_not_see_its_neighbours():
    network, x = generator(), images()
    torch.testing.assert_close(network(x)[1:], network(x[1:]))


def test_the_codes_of_a_patch_are_those_of_its_place():
    torch.manual_seed(0)
    block = PositionConditioning(2, encoding("binary", 8), norm="none", grid=2)
    block.mix[0].weight.data = torch.eye(2, 5).roll(3, 1)[:, :, None, None] * 1.0
    block.mix[0].bias.data.zero_()
    seen = block(torch.zeros(8, 2, 4, 4))
    digits = [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert seen.shape == (8, 2, 4, 4)
    assert seen[:, :, 0, 0].tolist() == 2 * digits, "the last two digits, image by image"
    assert torch.equal(seen, seen[:, :, :1, :1].expand_as(seen))


def codes_matter(network: SpatialAttentionGenerator) -> float:
    """Largest change of the output when all codes are replaced by noise that a patch shares."""
    x = images()
    with torch.no_grad():
        before = network(x)
        for level in (network.down1, network.down2, network.down3):
            position, grid = level[-1].position, network.grid
            if list(position.parameters()):
                position.table.normal_()
            else:
                noise = torch.randn(position.channels, 2, 2, dtype=torch.float64)
                side = position.side // 2
                position.planes = noise.repeat_interleave(side, 1).repeat_interleave(side, 2)
            assert grid in (1, 2)
        return (network(x) - before).abs().max().item()


# Design, section 4.3: what makes the published codes inert, and what does not.
@pytest.mark.parametrize("name", ["binary", "learned"])
@pytest.mark.parametrize(
    ("norm", "grid", "inert"),
    [("instance", 2, True), ("none", 2, False), ("instance", 1, False), ("none", 1, False)],
)
def test_instance_norm_takes_the_codes_of_patches_away_and_nothing_else_does(
    name, norm, grid, inert
):
    change = codes_matter(generator(name, condition_norm=norm, grid=grid))
    assert change < 1e-8 if inert else change > 1e-3


@pytest.mark.parametrize(("norm", "blind"), [("instance", True), ("none", False)])
def test_a_generator_without_effective_codes_does_not_know_a_patch_by_its_place(norm, blind):
    network, x = generator(condition_norm=norm), images()
    moved = x.roll((16, 16), (2, 3))
    with torch.no_grad():
        same = torch.allclose(network(moved).roll((16, 16), (2, 3)), network(x), atol=1e-8)
    assert same == blind


def test_waves_within_a_patch_survive_instance_norm():
    network, x = generator("sinusoidal", condition_norm="instance"), images()
    with torch.no_grad():
        before = network(x)
        network.down1[-1].position.planes.mul_(0.5)
        assert (network(x) - before).abs().max() > 1e-3


@pytest.mark.parametrize("after", [0, 1, 2])
def test_attention_stands_where_it_is_put_and_lets_patches_see_each_other(after):
    attention = SelfAttention2d(32, 4, make_encoding("none", Site(side=4)), grid=2)
    network = generator("none", attention=attention, attention_after=after)
    assert network.trunk[after] is attention
    assert len(network.trunk) == 3
    x, other = images(), images()
    other[:, :, 16:, :16] = 0
    with torch.no_grad():
        assert (network(x) != network(other))[:, :, :16, 16:].any()


def test_the_first_gate_sees_the_bottleneck_on_both_sides():
    network, seen = generator(), []
    network.up1.gate.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    network(images())
    (gate, skip) = seen[0]
    assert gate is skip


def test_a_level_of_the_decoder_fuses_and_doubles():
    torch.manual_seed(0)
    level = GatedUp(8, gate_norm=True)
    maps, skip = torch.randn(2, 2, 8, 4, 4).unbind(0)
    assert level(maps, skip).shape == (2, 4, 8, 8)
    fuse = FuseBlock(6, 3)
    torch.nn.init.zeros_(fuse.refine[0].weight)
    inputs = torch.randn(2, 6, 4, 4)
    assert torch.equal(fuse(inputs), fuse.join(inputs))
