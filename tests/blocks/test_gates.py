import numpy as np
import pytest
import torch

from gan_ray.blocks.gates import AttentionGate


def instance(x: np.ndarray) -> np.ndarray:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5)


def weights(layer: torch.nn.Conv2d) -> tuple[np.ndarray, np.ndarray]:
    return layer.weight.detach().flatten(1).numpy(), layer.bias.detach().numpy()[:, None]


@pytest.mark.parametrize("norm", [True, False])
def test_it_is_the_published_equation(norm):
    torch.manual_seed(0)
    module = AttentionGate(4, norm=norm).double()
    gate, skip = torch.randn(2, 1, 4, 3, 3, dtype=torch.float64)
    g, x = gate[0].flatten(1).numpy(), skip[0].flatten(1).numpy()
    (a, da), (b, db), (w, dw) = map(weights, (module.gate[0], module.skip[0], module.logit[0]))
    logit = w @ np.maximum(instance(a @ g + da) + instance(b @ x + db), 0) + dw
    passed = x / (1 + np.exp(-(instance(logit) if norm else logit)))
    np.testing.assert_allclose(module(gate, skip)[0].flatten(1).detach().numpy(), passed)


def test_only_without_a_norm_can_a_gate_be_closed():
    gate, skip = torch.randn(2, 2, 4, 8, 8)
    for norm, closed in ((True, False), (False, True)):
        module = AttentionGate(4, norm=norm)
        module.logit[0].bias.data.fill_(-100)
        assert (module(gate, skip).abs().max().item() < 1e-6) == closed
