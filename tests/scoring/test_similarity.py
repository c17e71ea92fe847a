import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from gan_ray.config import ScoreConfig
from gan_ray.detector import Evidence
from gan_ray.errors import ConfigError
from gan_ray.scoring.scores import make_score
from gan_ray.scoring.similarity import dissimilarity, dissimilarity_map
from tests.scoring.toy import Toy


def pair(size, channels=1, count=4, dtype=torch.float32):
    """Smooth images with noise; the last pair is flat and bright, where variances cancel."""
    draw = torch.Generator().manual_seed(size)
    x = torch.rand(count, channels, size, size, generator=draw) * 2 - 1
    x[1] = torch.nn.functional.avg_pool2d(x[1], 5, 1, 2, count_include_pad=False)
    y = (x + 0.3 * torch.randn(x.shape, generator=draw)).clamp(-1, 1)
    x[-1], y[-1] = 0.95, 0.9503
    return x.to(dtype), y.to(dtype)


@pytest.mark.parametrize(("size", "channels"), [(11, 1), (12, 3), (28, 1), (64, 3)])
def test_figure_and_map_are_those_of_scikit_image(size, channels):
    images, reconstructions = pair(size, channels)
    figures = dissimilarity((images, reconstructions))
    maps = dissimilarity_map((images, reconstructions))
    for row, (image, reconstruction) in enumerate(zip(images, reconstructions, strict=True)):
        mean, whole = structural_similarity(
            image.double().numpy(), reconstruction.double().numpy(), channel_axis=0, data_range=2,
            gaussian_weights=True, use_sample_covariance=False, full=True,
        )  # fmt: skip
        assert figures[row].item() == pytest.approx((1 - mean) / 2, abs=1e-5)
        np.testing.assert_allclose(maps[row, 0], (1 - whole.mean(0)) / 2, atol=1e-5)


def test_equal_images_are_alike_and_inverted_ones_are_not():
    images, _ = pair(16)
    assert dissimilarity((images, images)).abs().max() < 1e-12
    # A checkerboard against its negative: both means are 0, the contrasts equal, and the covariance
    # is minus the variance, so that SSIM is -(2 v - c) / (2 v + c), with v = 0.25 and c = 0.0036.
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 - 0.5
    pair_of_boards = board[None, None], -board[None, None]
    expected = (1 + (0.5 - 0.0036) / (0.5 + 0.0036)) / 2
    assert dissimilarity(pair_of_boards).item() == pytest.approx(expected, abs=1e-4)


def test_ssim_is_a_score_with_a_map_and_other_reductions():
    images, reconstructions = pair(28)
    seen = Evidence(reconstruction=reconstructions)
    plain = make_score(ScoreConfig(name="ssim"), Toy)(images, seen)
    torch.testing.assert_close(plain.score, dissimilarity((images, reconstructions)))
    torch.testing.assert_close(plain.map, dissimilarity_map((images, reconstructions)))
    largest = make_score(ScoreConfig(name="ssim", top=1e-6), Toy)(images, seen)
    torch.testing.assert_close(largest.score, plain.map.amax((1, 2, 3)))
    assert make_score(ScoreConfig(name="ssim", smooth=1.0), Toy)(images, seen).map.std() < (
        plain.map.std()
    )


def test_half_precision_is_compared_exactly():
    images, reconstructions = pair(16, dtype=torch.bfloat16)
    exact = dissimilarity((images.double(), reconstructions.double()))
    assert torch.equal(dissimilarity((images, reconstructions)), exact)


@pytest.mark.parametrize("measure", [dissimilarity, dissimilarity_map])
def test_images_smaller_than_the_window_are_refused(measure):
    with pytest.raises(ConfigError, match="10 x 10"):
        measure(pair(10))
