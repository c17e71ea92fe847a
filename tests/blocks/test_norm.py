import pytest
import torch

from gan_ray.blocks.norm import norm_layer

# Mean and biased variance are taken over these axes of [B, C, H, W].
AXES = {"batch": (0, 2, 3), "layer": (1, 2, 3), "instance": (2, 3)}


@pytest.mark.parametrize("kind", AXES)
def test_norm_standardises_over_its_axes(kind):
    maps = 3 * torch.randn(4, 5, 6, 6, dtype=torch.float64) + 2
    variance, mean = torch.var_mean(maps, AXES[kind], correction=0, keepdim=True)
    wanted = (maps - mean) / (variance + 1e-5).sqrt()
    torch.testing.assert_close(norm_layer(kind, 5).double()(maps), wanted)


@pytest.mark.parametrize("kind", AXES)
def test_norm_has_one_scale_and_one_shift_per_channel(kind):
    shapes = {name: tuple(p.shape) for name, p in norm_layer(kind, 5).named_parameters()}
    assert shapes == {"weight": (5,), "bias": (5,)}


def test_no_norm_is_the_identity():
    maps = torch.randn(2, 3, 4, 4)
    assert norm_layer("none", 3)(maps) is maps


@pytest.mark.parametrize("kind", ["none", "layer", "instance"])
def test_all_but_batch_norm_agree_between_train_and_eval_mode(kind):
    layer, maps = norm_layer(kind, 3), torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(layer.train()(maps), layer.eval()(maps), rtol=0, atol=0)
