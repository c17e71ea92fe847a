import numpy as np
import pytest
import torch

from gan_ray.blocks.encodings import PositionalEncoding, Site, make_encoding
from gan_ray.blocks.self_attention import SelfAttention2d
from gan_ray.blocks.windows import window_partition, window_reverse
from gan_ray.errors import ConfigError


def layer(name: str = "none", **options) -> SelfAttention2d:
    torch.manual_seed(0)
    position = make_encoding(name, Site(side=4, heads=2, head_dim=4), attention=True)
    return SelfAttention2d(8, 2, position, **options).double()


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


# Vaswani et al. 2017, eq. 1, head by head.
@pytest.mark.parametrize("name", ["none", "alibi", "relative_bias"])
def test_it_is_the_published_equation(name):
    attention = layer(name)
    maps = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    weights = {key: value.numpy() for key, value in attention.state_dict().items()}
    bias = attention.position.attention_bias()
    for image, seen in zip(maps, attention(maps), strict=True):
        x = image.flatten(1).T.numpy()
        q, k, v = np.split(x @ weights["inputs.weight"].T + weights["inputs.bias"], 3, axis=1)
        heads = []
        for head, own in enumerate((slice(0, 4), slice(4, 8))):
            scores = q[:, own] @ k[:, own].T / np.sqrt(4)
            if bias is not None:
                scores = scores + bias[head].detach().numpy()
            heads.append(softmax(scores) @ v[:, own])
        y = x + np.hstack(heads) @ weights["output.weight"].T + weights["output.bias"]
        y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(seen.flatten(1).T.detach().numpy(), y, atol=1e-7)


def test_published_size():
    with torch.device("meta"):
        attention = SelfAttention2d(512, 8, PositionalEncoding(Site(side=8)))
    norm = sum(p.numel() for p in attention.norm.parameters())
    assert sum(p.numel() for p in attention.parameters()) == 1_050_624 + norm


@pytest.mark.parametrize("name", ["none", "rope", "alibi", "relative_bias"])
def test_without_a_position_it_does_not_know_places(name):
    attention = layer(name)
    maps = torch.randn(1, 8, 4, 4, dtype=torch.float64)
    order = torch.randperm(16)
    mixed = maps.flatten(2)[..., order].view_as(maps)
    same = torch.allclose(
        attention(mixed).flatten(2), attention(maps).flatten(2)[..., order], atol=1e-9
    )
    assert same == (name == "none")


def test_windows_are_attended_to_as_one_image():
    whole, cut = layer("alibi"), layer("alibi", grid=2)
    maps = torch.randn(3, 8, 4, 4, dtype=torch.float64)
    windows = cut(window_partition(maps, 2))
    assert windows.shape == (12, 8, 2, 2)
    torch.testing.assert_close(window_reverse(windows, 2), whole(maps))


def test_heads_must_divide_the_channels():
    with pytest.raises(ConfigError, match=r"--model\.heads"):
        SelfAttention2d(8, 3, PositionalEncoding(Site(side=4)))
