import pytest
import torch
from torch import nn

from gan_ray.blocks.swin import (
    DropPath,
    PatchExpanding,
    PatchMerging,
    SwinBlock,
    SwinGenerator,
    WindowAttention,
    relative_index,
    stage_sides,
)
from gan_ray.errors import ConfigError


def tiny(channels: int = 1, size: int = 16, patch: int = 1, **options) -> SwinGenerator:
    torch.manual_seed(0)
    return SwinGenerator(channels, size, embed=6, patch=patch, **options)


def block(width: int, heads: int, window: int) -> int:
    """Parameters: two norms, query, key and value, projection, two layers of the MLP, biases."""
    norms = 2 * (2 * width)
    attention = 3 * (width * width + width) + (width * width + width)
    mlp = (width * 4 * width + 4 * width) + (4 * width * width + width)
    return norms + attention + mlp + (2 * window - 1) ** 2 * heads


def by_hand(c: int, channels: int, patch: int, depth: int, window: int) -> int:
    """The layer list of the design, section 5.5, written out for embed c."""
    embed = patch * patch * channels * c + c + 2 * c
    encoder = depth * (block(c, 3, window) + block(2 * c, 6, window) + block(4 * c, 12, window))
    merges = sum(2 * 4 * d + 4 * d * 2 * d for d in (c, 2 * c, 4 * c))
    middle = depth * block(8 * c, 24, window)
    expands = sum(2 * d * 4 * d + 2 * d for d in (4 * c, 2 * c, c))
    fuses = sum(2 * d * d + d for d in (4 * c, 2 * c, c))
    pixels = c * patch * patch * c + 2 * c
    head = c * channels * 9 + channels
    return embed + 2 * encoder + merges + middle + expands + fuses + pixels + head


@pytest.mark.parametrize(
    ("embed", "channels", "patch", "size", "parameters"),
    [
        (96, 1, 2, 64, 27_036_517),
        (96, 3, 2, 64, 27_039_015),
        (48, 1, 2, 64, 6_779_989),
        (96, 1, 4, 128, 27_148_261),
    ],
)
def test_parameters_are_those_of_the_layer_list(embed, channels, patch, size, parameters):
    with torch.device("meta"):
        generator = SwinGenerator(channels, size, embed=embed, patch=patch)
    counted = sum(p.numel() for p in generator.parameters())
    assert counted == by_hand(embed, channels, patch, 2, 4) == parameters


@pytest.mark.parametrize(
    ("size", "patch", "window"),
    [(16, 1, 4), (32, 2, 4), (64, 2, 4), (128, 4, 8), (256, 4, 8), (24, 1, 3)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_raw_map_has_the_shape_of_its_image(channels, size, patch, window):
    generator = tiny(channels, size, patch, window=window, depth=1)
    with torch.no_grad():
        assert generator(torch.randn(1, channels, size, size)).shape == (1, channels, size, size)


def test_sides_halve_from_stage_to_stage():
    assert stage_sides(64, 2, 4) == [32, 16, 8, 4]
    assert stage_sides(256, 4, 8) == [64, 32, 16, 8]


@pytest.mark.parametrize(
    ("size", "patch", "window", "message"),
    [
        (60, 2, 4, r"multiples of 16.*--data\.image-size"),
        (8, 2, 4, r"multiples of 16"),
        (96, 4, 8, r"12x12 tokens .* windows of 8"),
        (192, 4, 7, r"windows of 7: choose a window that divides each of \[48, 24, 12, 6\]"),
    ],
)
def test_a_side_that_does_not_divide_into_windows_is_refused(size, patch, window, message):
    with pytest.raises(ConfigError, match=message):
        SwinGenerator(1, size, embed=6, patch=patch, window=window)


def test_a_width_that_does_not_divide_into_heads_is_refused():
    with pytest.raises(ConfigError, match="multiple of 3"):
        SwinGenerator(1, 64, embed=32)


def test_relative_index_numbers_every_offset_once():
    index = relative_index(4)
    assert index.shape == (16, 16)
    assert set(index.flatten().tolist()) == set(range(7 * 7))
    assert set(index.diagonal().tolist()) == {(7 * 7) // 2}, "an offset of (0, 0) is in the middle"
    # Tokens 5 = (1, 1) and 8 = (2, 0): offset (-1, 1), so (-1 + 3) * 7 + (1 + 3).
    assert index[5, 8] == 2 * 7 + 4
    assert index[6, 9] == index[5, 8], "the same offset between other tokens"


def reach(shifted: bool, token: tuple[int, int]) -> torch.Tensor:
    """Say which tokens [8, 8] of the image reach one token through a block with windows of 4."""
    torch.manual_seed(0)
    block = SwinBlock(6, 3, side=8, window=4, shifted=shifted, drop=0.0)
    tokens = torch.randn(1, 8, 8, 6, requires_grad=True)
    block(tokens)[0, token[0], token[1]].square().sum().backward()
    return tokens.grad[0].abs().sum(-1) > 0


def square(rows: slice, columns: slice) -> torch.Tensor:
    reached = torch.zeros(8, 8, dtype=torch.bool)
    reached[rows, columns] = True
    return reached


def test_attention_stays_in_its_window():
    assert torch.equal(reach(False, (1, 6)), square(slice(0, 4), slice(4, 8)))


@pytest.mark.parametrize(
    ("token", "rows", "columns"),
    [
        ((3, 3), slice(2, 6), slice(2, 6)),
        ((0, 0), slice(0, 2), slice(0, 2)),
        ((7, 7), slice(6, 8), slice(6, 8)),
        ((0, 7), slice(0, 2), slice(6, 8)),
        ((4, 1), slice(2, 6), slice(0, 2)),
    ],
)
def test_shifted_windows_do_not_join_opposite_borders(token, rows, columns):
    assert torch.equal(reach(True, token), square(rows, columns))


def test_the_second_block_of_a_pair_shifts_where_there_is_more_than_one_window():
    generator = tiny(size=16, patch=1)  # sides 16, 8, 4, 2 with windows of 4, 4, 4, 2
    shifts = [[b.shift for b in stage] for stage in (*generator.encoder, generator.middle)]
    assert shifts == [[0, 2], [0, 2], [0, 0], [0, 0]]
    assert [stage[0].attention.window for stage in generator.encoder] == [4, 4, 4]
    assert generator.middle[0].attention.window == 2


def test_attention_is_that_of_the_formula():
    torch.manual_seed(0)
    layer = WindowAttention(6, 3, grid=1, window=2, shift=0).double()
    tokens = torch.randn(1, 2, 2, 6, dtype=torch.float64)
    query, key, value = layer.qkv(tokens.view(4, 6)).chunk(3, dim=1)
    heads = []
    for head in range(3):
        part = slice(2 * head, 2 * head + 2)
        scores = query[:, part] @ key[:, part].T / 2**0.5
        for i in range(4):
            for j in range(4):
                down, right = i // 2 - j // 2, i % 2 - j % 2
                scores[i, j] = scores[i, j] + layer.bias[(down + 1) * 3 + right + 1, head]
        heads.append(scores.softmax(-1) @ value[:, part])
    wanted = layer.project(torch.cat(heads, dim=1)).view(1, 2, 2, 6)
    torch.testing.assert_close(layer(tokens), wanted)


def test_merging_and_expanding_keep_neighbours_together():
    merging, expanding = PatchMerging(1), PatchExpanding(4, 1, 2)
    merging.norm = expanding.norm = nn.Identity()
    merging.linear = expanding.linear = nn.Identity()
    image = torch.arange(16.0).view(1, 4, 4, 1)
    merged = merging(image)
    assert sorted(merged[0, 0, 1].tolist()) == [2, 3, 6, 7]
    assert torch.equal(expanding(merged), image)


def test_an_image_does_not_see_its_neighbours():
    generator = tiny().eval()
    images = torch.randn(3, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(generator(images)[1:2], generator(images[1:2]))


def test_every_pixel_reaches_every_pixel():
    generator = tiny().eval()
    image = torch.randn(1, 1, 16, 16, requires_grad=True)
    generator(image)[0, 0, 0, 0].backward()
    assert (image.grad != 0).all()


def test_eval_draws_nothing_and_training_draws_from_the_global_generator():
    generator, images = tiny(drop_path=0.5), torch.randn(4, 1, 16, 16)
    generator.eval()
    with torch.no_grad():
        assert torch.equal(generator(images), generator(images))
        generator.train()
        torch.manual_seed(1)
        first, second = generator(images), generator(images)
        torch.manual_seed(1)
        assert torch.equal(generator(images), first)
    assert not torch.equal(first, second)


def test_drop_path_leaves_out_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    branch = torch.ones(20_000, 2, 2, 3)
    left = DropPath(0.25)(branch).flatten(1)
    assert (left == left[:, :1]).all()
    assert set(left[:, 0].tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert left.mean().item() == pytest.approx(1.0, abs=0.01)


def test_drop_path_grows_towards_the_middle():
    generator = tiny(drop_path=0.7)
    down = [b.drop_path.share for stage in (*generator.encoder, generator.middle) for b in stage]
    assert down == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    up = [b.drop_path.share for stage in generator.decoder for b in stage]
    assert up == pytest.approx([0.4, 0.5, 0.2, 0.3, 0, 0.1])


def test_a_gradient_reaches_every_parameter():
    generator = tiny()
    generator(torch.randn(2, 1, 16, 16)).square().sum().backward()
    without = {k for k, p in generator.named_parameters() if p.grad is None or not p.grad.any()}
    assert not without


def test_linear_layers_start_small():
    generator = SwinGenerator(1, 16, embed=48, patch=1)
    for name, module in generator.named_modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1), name
            assert module.bias is None or not module.bias.any()
        if isinstance(module, SwinBlock):
            assert module.attention.bias.std().item() == pytest.approx(0.02, rel=0.5)


def test_a_checkpoint_holds_parameters_only():
    generator = tiny()
    assert set(generator.state_dict()) == {name for name, _ in generator.named_parameters()}
