import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, pad

from gan_ray.blocks.attention import CBAM, ChannelGate, SpatialGate


def maps(rows: int = 3, channels: int = 6, size: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, channels, size, size, generator=generator, dtype=torch.float64)


def sigmoid(numbers: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-numbers))


def test_channel_gate_is_the_published_formula():
    gate, seen = ChannelGate(6, reduction=2).double(), maps()
    (w, b), (v, c) = (
        (layer.weight.detach().numpy(), layer.bias.detach().numpy())
        for layer in (gate.squeeze, gate.excite)
    )
    x = seen.numpy()
    answers = [
        np.maximum(pooled @ w.T + b, 0) @ v.T + c for pooled in (x.mean((2, 3)), x.max((2, 3)))
    ]
    wanted = x * sigmoid(sum(answers))[:, :, None, None]
    np.testing.assert_allclose(gate(seen).detach().numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize("kernel", [3, 7])
def test_spatial_gate_is_a_convolution_over_maximum_and_mean(kernel):
    gate, seen = SpatialGate(kernel=kernel).double(), maps()
    both = torch.stack([seen.amax(1), seen.mean(1)], 1)
    wide = pad(both, (kernel // 2,) * 4)
    wanted = seen * conv2d(wide, gate.conv.weight, gate.conv.bias).sigmoid()
    torch.testing.assert_close(gate(seen), wanted)


def test_cbam_gates_channels_first():
    gates, seen = CBAM(6, reduction=2).double(), maps()
    channel, spatial = gates
    torch.testing.assert_close(gates(seen), spatial(channel(seen)))


@pytest.mark.parametrize(("channels", "reduction", "hidden"), [(64, 16, 4), (4, 16, 1), (6, 2, 3)])
def test_hidden_numbers_are_a_share_of_the_channels_and_at_least_one(channels, reduction, hidden):
    assert ChannelGate(channels, reduction=reduction).squeeze.out_features == hidden


# Published: MLP with biases, 7x7 of two channels without bias, batch norm of one channel.
def test_published_form_has_batch_norm_in_place_of_a_bias():
    count = {
        norm: sum(p.numel() for p in CBAM(64, norm=norm).parameters()) for norm in (True, False)
    }
    gates = 2 * 64 * 4 + 4 + 64 + 2 * 49
    assert count == {True: gates + 2, False: gates + 1}


def test_without_batch_norm_an_image_is_gated_by_itself():
    seen = maps().requires_grad_(True)
    for norm, coupled in ((False, False), (True, True)):
        gates = CBAM(6, norm=norm).double().train()
        (gradient,) = torch.autograd.grad(gates(seen)[1].sum(), seen)
        assert bool(gradient[[0, 2]].any()) is coupled
