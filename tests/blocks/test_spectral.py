import numpy as np
import pytest
import torch
from torch import nn

from gan_ray.blocks.pair import ImagePairDiscriminator
from gan_ray.blocks.spectral import bound_spectrum_


def test_spectral_norm_bounds_every_layer_that_is_not_skipped():
    torch.manual_seed(0)
    judge = ImagePairDiscriminator(1, 32, (6, 8), mode="channel", dropout=0.0).double()
    head = judge.head.weight.detach().clone()
    bound_spectrum_(judge, skip={"head"})
    for _ in range(50):  # steps of the power iteration
        judge.train()(*torch.rand(2, 1, 1, 32, 32, dtype=torch.float64))
    norms = [
        np.linalg.svd(layer.weight.detach().flatten(1).numpy(), compute_uv=False).max()
        for layer in judge.features
        if isinstance(layer, nn.Conv2d)
    ]
    assert norms == pytest.approx([1.0, 1.0], abs=1e-3)
    assert torch.equal(judge.head.weight, head)
    assert {key for key, _ in judge.named_parameters() if "original" in key} == {
        "features.0.parametrizations.weight.original",
        "features.3.parametrizations.weight.original",
    }


def test_spectral_norm_bounds_an_embedding():
    torch.manual_seed(0)
    table = nn.Sequential(nn.Embedding(5, 7))
    bound_spectrum_(table)
    for _ in range(50):
        table.train()(torch.arange(5))
    weight = table[0].weight.detach().numpy()
    assert np.linalg.svd(weight, compute_uv=False).max() == pytest.approx(1.0, abs=1e-3)
