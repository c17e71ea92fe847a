import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_ray.config import from_dict, to_dict
from gan_ray.errors import ArtifactError, ConfigError
from gan_ray.scoring.calibration import Calibration, calibrate

finite = st.floats(-1e6, 1e6, width=32)
normals = st.lists(finite, min_size=20, max_size=60).map(np.array)
few = st.lists(finite, min_size=1, max_size=30).map(np.array)


def test_threshold_is_the_stated_order_statistic():
    # n = 19, fpr = 0.05: k = ceil(20 * 0.95) = 19, the largest; n = 39: k = 38, the second largest.
    assert calibrate(np.arange(19.0), 0.05).threshold == 18
    assert calibrate(np.arange(39.0)[::-1], 0.05).threshold == 37
    # 100 * (1 - 0.45) is 55 exactly, and 55.00000000000001 in floating point.
    assert calibrate(np.arange(99.0), 0.45).threshold == 54


def test_too_few_normals_are_refused_with_the_number_needed():
    with pytest.raises(
        ConfigError, match=r"18 held-out normal images are too few.*: 19 are needed"
    ):
        calibrate(np.arange(18.0), 0.05)
    calibrate(np.arange(19.0), 0.05)


@pytest.mark.parametrize("fpr", [0.0, 1.0, -0.1, float("nan")])
def test_impossible_rate_is_refused(fpr):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        calibrate(np.arange(100.0), fpr)


def test_scores_of_a_diverged_detector_are_refused():
    with pytest.raises(ArtifactError, match="1 of 30 scores"):
        calibrate(np.append(np.arange(29.0), np.nan), 0.05)


@given(normals, few)
def test_p_value_is_its_formula_in_zero_one_and_falls_with_the_score(held_out, scores):
    calibration = calibrate(held_out, 0.05)
    p_values = calibration.p_values(scores)
    expected = [(1 + np.count_nonzero(held_out >= s)) / (len(held_out) + 1) for s in scores]
    np.testing.assert_allclose(p_values, expected, rtol=1e-15)
    assert ((p_values > 0) & (p_values <= 1)).all()
    assert (np.diff(p_values[np.argsort(scores)]) <= 0).all()


@given(normals, few, st.sampled_from([0.05, 0.1, 0.25, 0.45, 0.5]))
def test_score_is_abnormal_exactly_when_its_p_value_is_at_most_the_rate(held_out, scores, fpr):
    calibration = calibrate(held_out, fpr)
    assert (calibration.abnormal(scores) == (calibration.p_values(scores) <= fpr)).all()


@given(normals, few)
def test_an_image_is_judged_without_its_neighbours(held_out, scores):
    calibration = calibrate(held_out, 0.1)
    alone = [calibration.p_values(scores[i : i + 1])[0] for i in range(len(scores))]
    assert alone == calibration.p_values(scores).tolist()


@given(normals, st.sampled_from([0.05, 0.07, 0.2, 0.5]))
def test_bound_keeps_the_promise(held_out, fpr):
    bound = calibrate(held_out, fpr).bound
    assert 0 < bound.expected <= fpr
    assert bound.upper >= bound.expected


def test_false_positive_rate_on_fresh_normals_is_what_the_bound_says():
    rng = np.random.default_rng(0)
    rates, bounds = [], []
    for _ in range(2000):
        calibration = calibrate(rng.gumbel(size=100), 0.05)
        rates.append(calibration.abnormal(rng.gumbel(size=2000)).mean())
        bounds.append(calibration.bound)
    assert np.mean(rates) == pytest.approx(bounds[0].expected, abs=0.002)  # 5 standard errors
    exceeded = np.mean(np.array(rates) > bounds[0].upper)
    assert 0.02 < exceeded < 0.08  # 5 % of calibration sets, plus the noise of 2,000 fresh images


def test_colour_scale_spans_the_map_pixels_of_normals():
    maps = np.linspace(0, 1, 30 * 100, dtype=np.float32).reshape(30, 10, 10)
    low, high = calibrate(np.arange(30.0), 0.05, maps).map_range
    assert (low, high) == pytest.approx((0.01, 0.999), abs=1e-3)
    assert calibrate(np.arange(30.0), 0.05).map_range is None


def test_calibration_survives_a_manifest():
    calibration = calibrate(np.random.default_rng(0).normal(size=50).astype(np.float32), 0.05)
    assert from_dict(Calibration, to_dict(calibration)) == calibration


def two_scanners(rng, images):
    """Scores of normals: scanner b scores higher, and c has hardly been used."""
    strata = rng.choice(["a", "b", "c", ""], images, p=[0.5, 0.4, 0.02, 0.08])
    return rng.normal(size=images) + 3 * (strata == "b"), strata


def test_every_stratum_keeps_the_rate_by_a_threshold_of_its_own():
    rng, rates, common = np.random.default_rng(0), [], []
    for _ in range(300):
        scores, strata = two_scanners(rng, 200)
        calibration = calibrate(scores, 0.1, by="scanner", strata=strata)
        fresh, of = two_scanners(rng, 2000)
        called, blind = calibration.abnormal(fresh, of), calibration.abnormal(fresh)
        rates.append([called[of == name].mean() for name in "ab"])
        common.append([blind[of == name].mean() for name in "ab"])
    # 3 standard errors of a mean of 300 rates, each of about 90 calibration normals.
    assert np.mean(rates, axis=0) == pytest.approx([0.1, 0.1], abs=0.01)
    assert np.mean(common, axis=0)[1] > 0.2  # one threshold for all fails scanner b


def test_strata_with_too_few_normals_and_unknown_ones_take_the_common_threshold():
    scores = np.arange(60.0)
    strata = np.array(["a"] * 40 + ["b"] * 18 + [""] * 2)
    calibration = calibrate(scores, 0.05, by="site", strata=strata)
    assert calibration.few == {"b": 18}
    assert list(calibration.strata) == ["a"]
    for name in ("b", "", "never seen"):
        assert calibration.of(name) is calibration
    assert calibration.of("a").threshold == calibrate(scores[:40], 0.05).threshold
    assert calibration.of("a").id != calibration.id
    asked = np.array(["a", "b", "never seen"])
    at = np.full(3, 39.0)
    assert calibration.abnormal(at, asked).tolist() == [True, False, False]
    assert calibration.p_values(at, asked)[0] == calibrate(scores[:40], 0.05).p_values(at)[0]
    assert calibration.p_values(at, asked)[1] == calibration.p_values(at)[1]
    assert from_dict(Calibration, to_dict(calibration)) == calibration


def test_images_of_one_group_tell_less_than_as_many_groups():
    scores = np.random.default_rng(0).normal(size=200)
    alone, paired, alike = (
        calibrate(scores, 0.05, groups=(np.arange(200) // size).astype(str)) for size in (1, 2, 10)
    )
    assert alone.bound == calibrate(scores, 0.05).bound
    assert [one.groups for one in (alone, paired, alike)] == [200, 100, 20]
    assert alone.bound.upper < paired.bound.upper < alike.bound.upper
    assert alike.threshold == alone.threshold
    # Five groups of equal scores: the threshold is the largest of them, which one in six exceeds.
    five = calibrate(scores[:100], 0.05, groups=(np.arange(100) // 20).astype(str))
    assert five.bound.expected == pytest.approx(1 / 6)


def test_groups_of_several_images_have_a_threshold_for_their_means():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40).astype(str), 3)
    scores = rng.normal(size=120)
    means = scores.reshape(40, 3).mean(axis=1)
    found = calibrate(scores, 0.05, groups=groups).subjects
    assert found.threshold == pytest.approx(calibrate(means, 0.05).threshold)
    assert found.images == 40
    assert calibrate(scores[:30], 0.05, groups=groups[:30]).subjects is None  # 10 groups
    assert calibrate(scores, 0.05, groups=np.arange(120).astype(str)).subjects is None
