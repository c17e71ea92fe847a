import pytest
import torch

from gan_ray.blocks.conditional import ConditionalBatchNorm2d, ConditionalHead, ProjectionHead

CLASSES = torch.tensor([2, 0, 1, 2])


@pytest.mark.parametrize("affine", [False, True])
def test_conditional_batch_norm_scales_and_shifts_by_its_condition(affine):
    layer = ConditionalBatchNorm2d(3, 5, affine=affine).double()
    maps, condition = torch.randn(4, 3, 6, 6).double(), torch.randn(4, 5).double()
    variance, mean = torch.var_mean(maps, (0, 2, 3), correction=0, keepdim=True)
    normal = (maps - mean) / (variance + 1e-5).sqrt()
    scale = 1 + torch.einsum("oc,bc->bo", layer.scale.weight, condition)
    shift = torch.einsum("oc,bc->bo", layer.shift.weight, condition)
    wanted = torch.einsum("bo,bohw->bohw", scale, normal) + shift[:, :, None, None]
    torch.testing.assert_close(layer(maps, condition), wanted)
    own = {"norm.weight", "norm.bias"} if affine else set()
    names = {name for name, _ in layer.named_parameters()}
    assert names == own | {"scale.weight", "shift.weight"}


def test_projection_head_adds_the_product_with_the_class():
    head, features = ProjectionHead(6, 3), torch.randn(4, 6)
    w, b, e = head.linear.weight[0], head.linear.bias[0], head.embedding.weight
    wanted = [w @ f + b + e[y] @ f for f, y in zip(features, CLASSES, strict=True)]
    torch.testing.assert_close(head(features, CLASSES), torch.stack(wanted))


def head(conditioning: str) -> ConditionalHead:
    sizes = {"classes": 3, "class_size": 5}
    return ConditionalHead(2, 4, 7, conditioning=conditioning, **sizes).double()


def test_concatenation_adds_a_linear_map_of_the_class():
    layer, maps = head("concat"), torch.randn(4, 2, 4, 4).double()
    w, u = layer.linear.weight.split([32, 5], 1)
    kind = layer.embedding.weight[CLASSES]
    wanted = maps.flatten(1) @ w.T + kind @ u.T + layer.linear.bias
    torch.testing.assert_close(layer(maps, CLASSES), wanted)


def test_film_scales_and_shifts_the_channels_of_the_map():
    layer, maps = head("film"), torch.randn(4, 2, 4, 4).double()
    moved = layer.embedding.weight[CLASSES] @ layer.film.weight.T + layer.film.bias
    scaled = [
        torch.stack([(1 + m[c]) * image[c] + m[2 + c] for c in range(2)])
        for image, m in zip(maps, moved, strict=True)
    ]
    wanted = torch.stack(scaled).flatten(1) @ layer.linear.weight.T + layer.linear.bias
    torch.testing.assert_close(layer(maps, CLASSES), wanted)


def test_published_projection_moves_all_numbers_alike():
    layer, maps = head("projection_scalar"), torch.randn(1, 2, 4, 4).double()
    one, other = (layer(maps, torch.tensor([y]))[0] for y in (0, 1))
    e = layer.embedding.weight
    moved = (e[0] - e[1]) @ maps.flatten()
    torch.testing.assert_close(one - other, moved.expand(7))


@pytest.mark.parametrize("conditioning", ["concat", "film", "projection_scalar"])
def test_class_changes_the_numbers_of_its_own_row_only(conditioning):
    layer, maps = head(conditioning), torch.randn(4, 2, 4, 4).double()
    plain, changed = layer(maps, CLASSES), layer(maps, torch.tensor([2, 1, 1, 2]))
    assert (plain != changed).any(1).tolist() == [False, True, False, False]
