import dataclasses

import numpy as np
import pytest
import torch

from gan_ray import architectures
from gan_ray.artifacts.bundle import load_bundle
from gan_ray.artifacts.export import export
from gan_ray.artifacts.parity import verify
from gan_ray.config import ScoreConfig
from gan_ray.data.sources import Split, load_training
from gan_ray.errors import ConfigError
from gan_ray.experiment import build_detector, make
from gan_ray.scoring.baselines import untrained
from gan_ray.scoring.scales import fit_scales
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import make_score
from gan_ray.training.launch import train
from gan_ray.training.run import RunFolder, load_detector
from gan_ray.training.validation import Validation
from tests.scoring.toy import Toy, TwoHeads, toy

DATA = {"source": "digits", "normal_class": 1, "holdout": 0.4, "image_size": 8}


@pytest.fixture(scope="module", autouse=True)
def listed():
    """The toy among the systems."""
    architectures._registry()[TwoHeads.name] = TwoHeads
    yield
    del architectures._registry()[TwoHeads.name]


def normals(count=30, size=16, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (count, 1, size, size), np.uint8)
    names = np.array([str(index) for index in range(count)])
    return Split(images=images, ids=names, groups=names, classes=np.zeros(count, np.int64))


def experiment(**score):
    changes = {
        "data": DATA,
        "train": {"images": 320, "report_every": 160, "samples": 0},
        "score": score,
    }
    return make(TwoHeads.name, preset="tiny", changes=changes)


def test_scales_bring_every_part_of_normals_to_one():
    config, detector, held_out = ScoreConfig(feature_weight=2.0), toy(TwoHeads), normals()
    fitted = fit_scales(config, detector, held_out)
    assert dataclasses.replace(fitted, scales={}) == config
    result = Scorer(detector, make_score(fitted, detector)).score_images(held_out.images, maps=True)
    means = {name: part.mean() for name, part in result.parts.items()}
    assert fitted.scales == pytest.approx(means, rel=1e-6)
    assert set(fitted.scales) == {"residual_squared", "features_global", "features_pixel",
                                  "map_residual", "map_pixel"}  # fmt: skip
    assert result.scores.mean() == pytest.approx(1 + 2 + 1, rel=1e-5)
    assert result.maps.mean() == pytest.approx(1 + 1, rel=1e-5)


def test_scales_are_fitted_anew_whatever_they_were():
    detector, held_out = toy(TwoHeads), normals()
    fitted = fit_scales(ScoreConfig(), detector, held_out)
    assert fit_scales(fitted, detector, held_out) == fitted
    assert fit_scales(fitted, toy(TwoHeads, seed=1), held_out) != fitted


def test_scales_of_parts_that_normals_do_not_have_are_one():
    detector = toy(TwoHeads)
    with torch.no_grad():
        for parameter in detector.networks["pixel"].parameters():
            parameter.zero_()
    scales = fit_scales(ScoreConfig(), detector, normals()).scales
    assert (scales["features_pixel"], scales["map_pixel"]) == (1.0, 1.0)
    assert scales["residual_squared"] not in (0.0, 1.0)


def test_a_score_that_does_not_scale_costs_no_look():
    class Resting(Toy):
        def evidence(self, images, classes=None):
            raise AssertionError("no image needs to be looked at")

    config = ScoreConfig(name="residual_features", feature_weight=3.0)
    assert fit_scales(config, toy(Resting), normals()) is config


def test_every_look_of_a_training_fits_its_own_scales():
    made = experiment()
    validation = Validation(made, load_training(made.data))
    for seed in (0, 1):
        seen = validation.look(build_detector(made, seed=seed), torch.device("cpu"))
        assert seen.scores["select"][1].mean() == pytest.approx(3, rel=1e-5)


def test_selection_by_the_mean_score_of_normals_is_refused():
    made = experiment()
    chosen = {"train": {"select": "normal_score"}}
    with pytest.raises(ConfigError, match="scaled to one mean"):
        make(made.architecture, preset="tiny", changes=chosen)
    assert make(made.architecture, preset="tiny", changes=chosen | {"score": {"name": "residual"}})


@pytest.fixture(scope="module")
def exported(tmp_path_factory, listed):
    """A trained run and its bundle."""
    home = tmp_path_factory.mktemp("scaled")
    train(experiment(feature_weight=0.5), home / "run", local=True)
    return home / "run", export(home / "run", home / "bundle", fpr=0.2)


def test_bundle_carries_scales_of_the_normals_of_selection(exported):
    run, path = exported
    bundle, (detector, made, _) = load_bundle(path), load_detector(run)
    data = load_training(RunFolder(run).experiment().data)
    config = dataclasses.replace(made.score, name="scaled_features")
    assert bundle.score == fit_scales(config, detector, data.select)
    assert bundle.score != fit_scales(config, detector, data.calibrate)
    assert made.score.scales == {}
    scorer = Scorer(detector, make_score(bundle.score, detector))
    expected, found = (
        each.score_images(data.calibrate.images).scores
        for each in (scorer, Scorer.from_bundle(bundle))
    )
    assert np.array_equal(found, expected)
    assert bundle.calibration.scores == pytest.approx(sorted(expected.tolist()), rel=1e-6)
    assert verify(path)["max_score_difference"] == 0


def test_untrained_control_scales_by_its_own_normals(exported):
    bundle = load_bundle(exported[1])
    held_out = load_training(bundle.experiment.data).select
    control = untrained(bundle, held_out)
    assert control.score_images(held_out.images).scores.mean() == pytest.approx(2.5, rel=1e-5)
    detector = build_detector(bundle.experiment)
    stale = Scorer(detector, make_score(bundle.score, detector)).score_images(held_out.images)
    assert stale.scores.mean() != pytest.approx(2.5, rel=0.05)
