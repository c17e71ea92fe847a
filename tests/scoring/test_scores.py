import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from gan_ray import architectures
from gan_ray.config import ScoreConfig
from gan_ray.detector import Evidence
from gan_ray.errors import ConfigError
from gan_ray.experiment import build_detector, make
from gan_ray.scoring.scores import make_score, offered, settings_read
from tests.scoring.toy import Blind, Toy, TwoHeads, toy

# One 2x2 image in two channels, worked by hand: differences 0.4 0 0 0 | 0 0 0 -0.8.
IMAGE = torch.tensor([[[[0.4, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, -0.8]]]])
EVIDENCE = Evidence(
    reconstruction=torch.zeros(1, 2, 2, 2),
    features={"critic": (torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 5.0]]))},
    latents={"code": (torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 1.0]]))},
)


def scored(name, **settings):
    return make_score(ScoreConfig(name=name, **settings), Toy)(IMAGE, EVIDENCE)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("residual", {}, (0.4 + 0.8) / 8 / 2),
        ("residual_squared", {}, (0.16 + 0.64) / 8),  # ||x - x_hat||^2 / n
        ("features", {}, 9 / 2),  # ||f - f_hat||^2 / n_f
        ("residual_features", {"feature_weight": 2.0}, 0.1 + 2.0 * 4.5),  # A_R + kappa A_D
        ("latent", {}, (4 + 1) / 2),
        ("latent_l1", {}, 2 + 1),
    ],
)
def test_score_is_the_published_equation(name, settings, expected):
    assert scored(name, **settings).score.tolist() == pytest.approx([expected])


@pytest.mark.parametrize(
    ("name", "scale"), [("residual", 0.5), ("residual_features", 1.0), ("latent", 1.0)]
)
def test_map_is_the_mean_residual_over_channels(name, scale):
    expected = scale * torch.tensor([[[[0.2, 0.0], [0.0, 0.4]]]])
    torch.testing.assert_close(scored(name).map, expected)


def test_parts_are_the_unweighted_components():
    parts = scored("residual_features", feature_weight=7.0).parts
    assert {k: v.item() for k, v in parts.items()} == pytest.approx(
        {"residual_squared": 0.1, "features": 4.5}
    )


# The same image with per-pixel features in two channels: differences 1 0 0 0 | 3 0 0 0.
PIXEL = torch.zeros(1, 2, 2, 2)
PIXEL[0, :, 0, 0] = torch.tensor([1.0, 3.0])
TWO = Evidence(
    reconstruction=torch.zeros(1, 2, 2, 2),
    features={"global": (torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 5.0]])),
              "pixel": (PIXEL, torch.zeros_like(PIXEL))},
)  # fmt: skip
SCALES = {"residual_squared": 0.2, "features_global": 9.0, "features_pixel": 0.5,
          "map_residual": 0.1, "map_pixel": 4.0}  # fmt: skip


def two(**settings):
    return make_score(ScoreConfig(**settings), TwoHeads)(IMAGE, TWO)


def test_scaled_score_adds_its_parts_each_relative_to_its_scale():
    parts = {"residual_squared": 0.1, "features_global": 4.5, "features_pixel": 10 / 8,
             "map_residual": 1.2 / 8, "map_pixel": 4 / 8}  # fmt: skip
    plain = two(feature_weight=3.0, pixel_weight=5.0)
    assert {name: part.item() for name, part in plain.parts.items()} == pytest.approx(parts)
    assert plain.score.item() == pytest.approx(0.1 + 3 * 4.5 + 5 * 1.25)
    scaled = two(feature_weight=3.0, pixel_weight=5.0, scales=SCALES)
    assert scaled.score.item() == pytest.approx(0.1 / 0.2 + 3 * 4.5 / 9 + 5 * 1.25 / 0.5)
    assert {name: part.item() for name, part in scaled.parts.items()} == pytest.approx(parts)


def test_scaled_map_adds_residual_and_features_of_each_pixel():
    expected = torch.tensor([[[[0.2 / 0.1 + 5 * 2 / 4, 0.0], [0.0, 0.4 / 0.1]]]])
    torch.testing.assert_close(two(pixel_weight=5.0, scales=SCALES).map, expected)
    torch.testing.assert_close(two().map, torch.tensor([[[[0.2 + 2, 0.0], [0.0, 0.4]]]]))


def test_largest_pixel_of_the_scaled_map_may_be_the_score():
    top = two(pixel_weight=5.0, scales=SCALES, top=1e-6)
    assert top.score.item() == pytest.approx(0.2 / 0.1 + 5 * 2 / 4)


@pytest.mark.parametrize(
    ("weights", "left", "score"),
    [
        ({"feature_weight": 0.0}, {"pixel"}, 0.1 + 1.25),
        ({"pixel_weight": 0.0}, {"global"}, 0.1 + 4.5),
        ({"pixel_weight": 0.0, "feature_weight": 0.0}, set(), 0.1),
    ],
)
def test_part_without_weight_needs_no_evidence(weights, left, score):
    features = {name: pair for name, pair in TWO.features.items() if name in left}
    made = make_score(ScoreConfig(**weights), TwoHeads)
    assert made.needs == {"reconstruction"} | {f"features.{name}" for name in left}
    found = made(IMAGE, Evidence(reconstruction=TWO.reconstruction, features=features))
    assert found.score.item() == pytest.approx(score)
    assert found.score.item() == pytest.approx(made(IMAGE, TWO).score.item())
    torch.testing.assert_close(found.map, made(IMAGE, TWO).map)


def test_a_score_says_which_settings_it_reads():
    assert settings_read(ScoreConfig(), TwoHeads) == {"feature_weight", "pixel_weight", "scales"}
    assert settings_read(ScoreConfig(name="residual_features"), Toy) == {"feature_weight"}
    assert settings_read(ScoreConfig(name="residual"), TwoHeads) == set()


OF_RECONSTRUCTIONS = {"residual", "residual_squared", "ssim", "l1", "l2"}


def test_scores_follow_from_the_evidence_with_the_papers_first():
    assert offered(Toy)[0] == "residual"
    more = {"residual_features", "features", "latent", "latent_l1"}
    assert set(offered(Toy)) == OF_RECONSTRUCTIONS | more
    assert offered(Blind) == ("latent", "latent_l1")
    assert offered(TwoHeads)[0] == "scaled_features"
    assert set(offered(TwoHeads)) == OF_RECONSTRUCTIONS | {"scaled_features"}


def test_every_system_offers_the_scores_of_a_reconstruction_beside_its_papers():
    for name in architectures.names():
        assert offered(architectures.get(name))[0] == architectures.get(name).score
        assert set(offered(architectures.get(name))) >= OF_RECONSTRUCTIONS, name


def test_ssim_of_images_smaller_than_its_window_is_refused_before_training():
    make_score(ScoreConfig(name="ssim"), toy(size=11))
    with pytest.raises(ConfigError, match=r"windows of 11 x 11 pixels.*have 10 x 10"):
        make_score(ScoreConfig(name="ssim"), toy(size=10))
    changes = {"data": {"image_size": 8}, "score": {"name": "ssim"}}
    tiny = make("f-anogan", preset="tiny", changes=changes)
    with pytest.raises(ConfigError, match=r"--data.image-size 11 or more"):
        build_detector(tiny)


def test_empty_name_is_the_first_score_of_the_detector():
    assert scored("").score == scored("residual").score


def test_top_share_is_the_mean_of_the_brightest_pixels():
    assert scored("residual", top=0.25).score.item() == pytest.approx(0.2)
    assert scored("residual", top=0.26).score.item() == pytest.approx((0.2 + 0.1) / 2)
    assert scored("residual", top=1.0).score.item() == pytest.approx(
        scored("residual").score.item()
    )


def test_smooth_map_agrees_with_scipy_and_leaves_the_number_alone():
    images = torch.rand(3, 1, 12, 12, dtype=torch.float64)
    evidence = Evidence(reconstruction=torch.zeros_like(images))
    plain = make_score(ScoreConfig(name="residual"), Toy)(images, evidence)
    blurred = make_score(ScoreConfig(name="residual", smooth=1.5), Toy)(images, evidence)
    assert torch.equal(plain.score, blurred.score)
    for map_, original in zip(blurred.map, plain.map, strict=True):
        expected = gaussian_filter(original[0].numpy(), 1.5, mode="nearest", truncate=4)
        np.testing.assert_allclose(map_[0].numpy(), expected, atol=1e-12)


def test_half_precision_evidence_is_compared_in_float32():
    evidence = Evidence(reconstruction=torch.zeros(1, 2, 2, 2, dtype=torch.bfloat16))
    score = make_score(ScoreConfig(name="residual"), Toy)
    assert score(IMAGE.bfloat16(), evidence).score.dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (Toy, {"name": "residul"}, "Did you mean 'residual'"),
        (Blind, {"name": "l3"}, "unknown score of blind 'l3': known are latent, latent_l1"),
        (Blind, {"name": "residual"}, "lacks reconstruction.*--score.name.: latent, latent_l1;"),
        (Blind, {"name": "features"}, "lacks features.critic"),
        (Blind, {"top": 0.1}, "lacks reconstruction"),
        (Toy, {"top": 1.5}, "top=1.5"),
        (Toy, {"smooth": -1.0}, "smooth=-1.0"),
        (TwoHeads, {"pixel_weight": -1.0}, "pixel_weight=-1.0"),
        (TwoHeads, {"scales": {"map_pixel": 0.0}}, r"scales=\{'map_pixel': 0.0\}"),
        (
            Toy,
            {"name": "features", "feature_weight": 2.0},
            "does not read score.feature_weight=2.0.*--score.name residual_features",
        ),
        (Toy, {"pixel_weight": 2.0}, "does not read score.pixel_weight=2.0: leave it at 1.0"),
        (Toy, {"feature_share": 0.5}, "does not read score.feature_share"),
        (Toy, {"scales": {"residual": 2.0}}, "does not read score.scales"),
    ],
)
def test_score_that_cannot_work_is_refused_with_the_reason(kind, settings, words):
    with pytest.raises(ConfigError, match=words):
        make_score(ScoreConfig(**settings), kind)


def test_detector_without_reconstruction_scores_without_a_map():
    evidence = Evidence(latents=EVIDENCE.latents)
    result = make_score(ScoreConfig(), Blind)(IMAGE, evidence)
    assert result.map is None
    assert result.score.item() == pytest.approx(2.5)
