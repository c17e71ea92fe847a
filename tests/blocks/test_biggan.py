import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate, relu

from gan_ray.blocks.biggan import BlockDown, ConditionalBlockUp, Descent

KINDS = ["separable", "dense"]


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("out", [4, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_up_block_is_the_published_sequence(kind, out, attention):
    block = ConditionalBlockUp(6, out, condition=3, kind=kind, kernel=5, attention=attention)
    maps, c = torch.randn(2, 6, 4, 4), torch.randn(2, 3)
    branch = block.conv_in(interpolate(relu(block.norm_in(maps, c)), scale_factor=2))
    branch = block.conv_out(relu(block.norm_out(branch, c)))
    wanted = branch + block.shortcut(interpolate(maps, scale_factor=2))
    assert len(list(block.shortcut.parameters())) == (0 if out == 6 else 2)
    torch.testing.assert_close(block(maps, c), block.attention(wanted))
    assert len(list(block.attention.children())) == (2 if attention else 0)


@pytest.mark.parametrize("halve", [False, True])
@pytest.mark.parametrize("norm", ["none", "layer", "plain_instance"])
@pytest.mark.parametrize("kind", KINDS)
def test_down_block_is_the_published_sequence(kind, norm, halve):
    block = BlockDown(4, 6, kind=kind, kernel=3, norm=norm, halve=halve)
    maps = torch.randn(2, 4, 8, 8)
    branch = block.conv_in(relu(block.enter[0](maps)))
    branch = block.conv_out(relu(block.norm_out(branch)))
    wanted = branch + block.shortcut(maps)  # pooled after the 1x1 convolution here
    torch.testing.assert_close(block(maps), avg_pool2d(wanted, 2) if halve else wanted)


def test_raw_maps_keep_their_dark_half_and_their_contrast():
    block = BlockDown(1, 4, kind="separable", kernel=3, norm="layer", raw=True)
    maps = -torch.rand(1, 1, 8, 8)  # a ReLU would make it 0, a norm would undo the factor
    assert not torch.allclose(block.conv_in(block.enter(maps)), block.conv_in(0 * maps))
    assert torch.equal(block.enter(3 * maps), 3 * maps)


def test_shortcut_has_no_convolution_where_nothing_changes():
    kept = BlockDown(4, 4, kind="separable", kernel=3, norm="none", halve=False)
    halved = BlockDown(4, 4, kind="separable", kernel=3, norm="none")
    assert not list(kept.shortcut.parameters())
    assert list(halved.shortcut.parameters())


def test_descent_halves_as_often_as_told_and_attends_in_its_last_two_blocks():
    descent = Descent(
        (1, 4, 8, 8), halvings=2, kind="separable", kernel=3, norm="layer", attention=True, raw=True
    )
    assert descent(torch.randn(2, 1, 16, 16)).shape == (2, 8, 4, 4)
    assert [len(list(b.attention.parameters())) > 0 for b in descent] == [False, True, True]
    assert [len(list(b.enter.children())) for b in descent] == [0, 2, 2]
