import pytest
import torch
from torch import nn

from gan_ray.blocks.pyramid import (
    ConvDecoder,
    ConvEncoder,
    FeatureDiscriminator,
    pyramid_widths,
)
from gan_ray.errors import ConfigError


@pytest.mark.parametrize(
    ("size", "widths"),
    [
        (16, (64, 128)),
        (28, (64, 128)),
        (32, (64, 128, 256)),
        (64, (64, 128, 256, 512)),
        (256, (64, 128, 256, 512, 512, 512)),
    ],
)
def test_widths_double_down_to_the_root_and_stop_at_the_cap(size, widths):
    assert pyramid_widths(size, 64, 512) == widths


def test_widths_without_a_cap_keep_doubling():
    assert pyramid_widths(256, 64) == (64, 128, 256, 512, 1024, 2048)


@pytest.mark.parametrize("size", [0, 4, 8, 15, 30, 100])
def test_a_size_that_does_not_halve_to_a_root_is_refused_with_the_remedy(size):
    with pytest.raises(ConfigError, match=r"--data\.image-size"):
        pyramid_widths(size, 64)


@pytest.mark.parametrize("kernel", [4, 5])
@pytest.mark.parametrize(
    ("root", "widths", "size"), [(4, (3, 5, 7), 32), (7, (3, 5), 28), (4, (3, 5, 7, 7), 64)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_decoder_mirrors_encoder(kernel, root, widths, size, channels):
    shape = {"root": root, "kernel": kernel, "extra_layers": 1}
    encoder = ConvEncoder(channels, widths, 6, **shape)
    decoder = ConvDecoder(6, widths, channels, **shape)
    images = torch.randn(2, channels, size, size)
    code = encoder(images)
    assert code.shape == (2, 6)
    assert encoder.features(images).shape == (2, widths[-1], root, root)
    assert decoder(code).shape == images.shape
    assert decoder(100 * code).abs().max() <= 1


def test_first_stage_is_normalised_only_on_request():
    def norms(**settings):
        layers = ConvEncoder(1, (4, 8, 16), 5, **settings).features
        return sum(isinstance(layer, nn.BatchNorm2d) for layer in layers)

    assert norms() == 2
    assert norms(norm_first=True) == 3
    assert norms(extra_layers=2) == 4


def test_discriminator_gives_the_features_its_logit_is_made_of():
    torch.manual_seed(0)
    judge = FeatureDiscriminator(ConvEncoder(1, (4, 8), 1)).eval()
    images = torch.randn(3, 1, 16, 16)
    logit, features = judge(images)
    by_hand = (features * judge.encoder.head.weight).sum((1, 2, 3))
    assert features.shape == (3, 8, 4, 4)
    torch.testing.assert_close(logit, by_hand)


def test_discriminator_gives_earlier_features_on_request_and_the_same_logit():
    torch.manual_seed(0)
    encoder = ConvEncoder(1, (4, 8, 16), 1).eval()
    images = torch.randn(3, 1, 32, 32)
    last, earlier, first = (FeatureDiscriminator(encoder, back=n)(images) for n in (0, 1, 2))
    assert [f.shape for _, f in (last, earlier, first)] == [(3, 16, 4, 4), (3, 8, 8, 8),
                                                            (3, 4, 16, 16)]  # fmt: skip
    torch.testing.assert_close(earlier[1], encoder.features[:6](images))
    assert torch.equal(last[0], earlier[0])
    with pytest.raises(ConfigError, match="image-size"):
        FeatureDiscriminator(encoder, back=3)
