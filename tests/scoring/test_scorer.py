import io

import numpy as np
import pytest
import torch
from PIL import Image

from gan_ray.config import ScoreConfig
from gan_ray.errors import ConfigError
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import make_score, offered
from tests.scoring.toy import Blind, Toy, toy


def scorer(name="residual_features", *, kind=Toy, size=16, channels=1, double=False, **settings):
    detector = toy(kind, size=size, channels=channels)
    score = make_score(ScoreConfig(name=name), detector)
    return Scorer(detector.double() if double else detector, score, **settings)


def images(count=40, *, size=16, channels=1, dtype=np.uint8):
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, (count, channels, size, size), dtype)


@pytest.mark.parametrize("name", offered(Toy))
@pytest.mark.parametrize(("double", "tolerance"), [(False, 1e-6), (True, 1e-7)])
def test_score_does_not_depend_on_batch_size_order_or_neighbours(name, double, tolerance):
    # Results are float32, whatever the networks compute in: its last bit is 1.2e-7. A distance of
    # nearly equal features is as exact as its features, hence the share of the largest score.
    rows = images()
    whole = scorer(name, double=double, batch_size=40).score_images(rows).scores
    order = np.random.default_rng(1).permutation(40)
    shuffled = scorer(name, double=double, batch_size=7).score_images(rows[order]).scores
    alone = scorer(name, double=double, batch_size=1).score_images(rows).scores
    share = tolerance * whole.max()
    np.testing.assert_allclose(shuffled, whole[order], rtol=tolerance, atol=share)
    np.testing.assert_allclose(alone, whole, rtol=tolerance, atol=share)


def test_result_is_what_the_score_says_of_the_evidence():
    rows, judge = images(5, channels=3), scorer(channels=3, batch_size=2)
    result = judge.score_images(rows, maps=True, reconstructions=True)
    unit = torch.from_numpy(rows).float() / 127.5 - 1
    mean = judge.detector.networks["mean"][0].detach()
    np.testing.assert_allclose(result.reconstructions, mean.expand_as(unit), atol=1e-6)
    np.testing.assert_allclose(result.maps, (unit - mean).abs().mean(1), atol=1e-6)
    squared = (unit - mean).square().mean((1, 2, 3))
    np.testing.assert_allclose(result.parts["residual_squared"], squared, rtol=1e-5)
    total = result.parts["residual_squared"] + result.parts["features"]
    np.testing.assert_allclose(result.scores, total, rtol=1e-6)
    assert result.scores.dtype == np.float32


def test_maps_and_reconstructions_come_only_when_asked_for():
    result = scorer().score_images(images())
    assert result.maps is None
    assert result.reconstructions is None
    blind = scorer("latent", kind=Blind).score_images(images(), maps=True, reconstructions=True)
    assert blind.maps is None
    assert blind.reconstructions is None


def test_detector_in_train_mode_is_scored_in_eval_mode_and_left_untouched():
    judge = scorer()
    expected = judge.score_images(images()).scores
    judge.detector.train()
    before = {name: tensor.clone() for name, tensor in judge.detector.state_dict().items()}
    np.testing.assert_array_equal(judge.score_images(images()).scores, expected)
    for name, tensor in judge.detector.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in judge.detector.parameters())


def test_detector_may_differentiate_inside_while_scores_carry_no_graph():
    class Searching(Toy):
        name = "searching"

        def evidence(self, images, classes=None):
            with torch.enable_grad():
                shift = torch.zeros(len(images), 1, 1, 1, requires_grad=True)
                (gradient,) = torch.autograd.grad((images - shift).square().sum(), shift)
            return super().evidence(images - gradient)

    assert np.isfinite(scorer(kind=Searching).score_images(images()).scores).all()


def test_sixteen_bit_images_use_their_own_range():
    wide = images().astype(np.uint16) * 257
    np.testing.assert_allclose(
        scorer().score_images(wide).scores, scorer().score_images(images()).scores, rtol=1e-6
    )


def test_no_images_give_no_scores():
    result = scorer().score_images(images(0), maps=True)
    assert result.scores.shape == (0,)
    assert result.scores.dtype == np.float32


def test_images_of_another_size_are_refused():
    with pytest.raises(ConfigError, match=r"\[3, 1, 8, 8\].*built for \[N, 1, 16, 16\]"):
        scorer().score_images(images(3, size=8))
    with pytest.raises(ConfigError, match="batch_size"):
        scorer(batch_size=0)


def encoded(array, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


def test_files_score_as_their_pixels_whatever_stands_between_them():
    rows = images(5)
    wide = (images(1, dtype=np.uint16)[0, 0] & 0xFFF0).astype(np.uint16)
    files = [(f"{n}.png", encoded(row[0])) for n, row in enumerate(rows)]
    files[2:2] = [("broken.png", files[0][1][:60]), ("wide.png", encoded(wide)), ("empty.png", b"")]
    results = scorer(batch_size=3).score_files(files, maps=True)
    assert [result.name for result in results] == [name for name, _ in files]
    good = [r for r in results if r.error is None and r.name != "wide.png"]
    plain = scorer().score_images(rows, maps=True)
    np.testing.assert_allclose([r.score for r in good], plain.scores, rtol=1e-6)
    np.testing.assert_allclose(np.stack([r.map for r in good]), plain.maps, atol=1e-6)
    expected = scorer().score_images(wide[None, None]).scores[0]
    assert results[3].score == pytest.approx(expected, rel=1e-6)
    for bad in (results[2], results[4]):
        assert bad.name in bad.error
        assert (bad.score, bad.map) == (None, None)


def test_files_of_another_size_are_fitted_as_in_training():
    array = images(1, size=30)[0, 0][:20]
    squashed, padded = (
        scorer(fit=fit).score_files([("a.png", encoded(array))])[0].score
        for fit in ("resize", "pad")
    )
    assert squashed != padded


def test_no_files_give_no_results():
    assert scorer().score_files([]) == []
