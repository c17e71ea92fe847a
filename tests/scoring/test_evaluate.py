import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as reference

from gan_ray.artifacts.bundle import load_bundle, save_bundle
from gan_ray.artifacts.golden import Golden, golden_images
from gan_ray.artifacts.manifest import Manifest, Training, software
from gan_ray.config import DataConfig, to_dict
from gan_ray.data.sources import load_test, load_training
from gan_ray.data.transforms import preprocessing_hash
from gan_ray.errors import ConfigError, StorageError
from gan_ray.experiment import build_detector, image_spec, make
from gan_ray.names import pseudonyms
from gan_ray.scoring.calibration import calibrate
from gan_ray.scoring.evaluate import evaluate
from gan_ray.scoring.metrics import pixel_best_dice
from gan_ray.scoring.regions import aupro
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import make_score

DIGITS = {"source": "digits", "normal_class": 0}
AT_95 = {"sensitivity_at_95", "specificity_at_95"}


def bundle(path, architecture="ganomaly", *, data=None, calibrated=True, built_from=0):
    """A bundle of untrained networks, drawn from the seed `built_from`; its experiment says 0."""
    experiment = make(architecture, preset="tiny", changes={"data": data or DIGITS})
    detector, image = build_detector(experiment, seed=built_from), image_spec(experiment)
    scorer = Scorer(detector, make_score(experiment.score, detector))
    held_out = scorer.score_images(load_training(experiment.data).normal.images, maps=True)
    calibration = calibrate(held_out.scores, 0.1, held_out.maps)
    manifest = Manifest(
        name=path.name,
        version="3",
        architecture=architecture,
        experiment=to_dict(experiment),
        image=image,
        fit=experiment.data.fit,
        preprocessing=preprocessing_hash(image, experiment.data.fit),
        score=to_dict(experiment.score),
        calibration=to_dict(calibration) if calibrated else None,
        data_fingerprint="0123456789abcdef",
        metrics={},
        passes_per_image=detector.passes_per_image,
        software=software(),
        training=Training(images=0, stage="gan", selection="untrained"),
        files={},
    )
    images = golden_images(image)
    golden = Golden(images, scorer.score_images(images).scores)
    return save_bundle(path, detector, manifest, golden=golden)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Two bundles and the baselines on the digits: where they are, and what came out."""
    home = tmp_path_factory.mktemp("evaluated")
    bundles = [
        bundle(home / "first"),
        bundle(home / "second", "brainomaly", data=DIGITS | {"image_size": 32}, built_from=1),
    ]
    out = home / "out"
    return bundles, out, evaluate(bundles, None, out, baselines=True, resamples=200)


def test_written_file_is_what_is_returned(evaluated):
    _, out, evaluation = evaluated
    assert json.loads((out / "evaluation.json").read_text()) == evaluation
    assert evaluation["schema"] == 1


def test_figures_are_those_of_the_bundle_on_the_test_split(evaluated):
    bundles, _, evaluation = evaluated
    for path, model in zip(bundles, evaluation["models"], strict=True):
        loaded = load_bundle(path)
        test = load_test(loaded.experiment.data)
        scores = Scorer.from_bundle(loaded).score_images(test.split.images).scores
        assert model["name"] == path.name
        assert model["architecture"] == loaded.experiment.architecture
        assert model["scores"]["ids"] == pseudonyms(test.split.ids)
        assert model["scores"]["labels"] == test.labels.tolist()
        np.testing.assert_allclose(model["scores"]["values"], scores, rtol=1e-6)
        called = scores > loaded.calibration.threshold
        expected = {
            "image_auroc": reference.roc_auc_score(test.labels, scores),
            "image_ap": reference.average_precision_score(test.labels, scores),
            "sensitivity": called[test.labels == 1].mean(),
            "specificity": (~called)[test.labels == 0].mean(),
            "precision": reference.precision_score(test.labels, called, zero_division=0),
            "f1": reference.f1_score(test.labels, called, zero_division=0),
            "accuracy": (called == test.labels).mean(),
            "balanced_accuracy": reference.balanced_accuracy_score(test.labels, called),
            "brier": np.square(1 - loaded.calibration.p_values(scores) - test.labels).mean(),
        }
        values = {name: figure["value"] for name, figure in model["metrics"].items()}
        assert {name: values[name] for name in expected} == pytest.approx(expected)
        assert set(values) - set(expected) == {*AT_95, "image_pr_auc", "calibration_error"}
        for figure in model["metrics"].values():
            assert figure["low"] <= figure["value"] <= figure["high"]
        assert model["threshold"]["value"] == loaded.calibration.threshold
        assert model["map_range"] == list(loaded.calibration.map_range)
        area = reference.auc(model["roc"]["fpr"], model["roc"]["tpr"])
        assert area == pytest.approx(values["image_auroc"])
        assert {name: len(band["at"]) for name, band in model["bands"].items()} == {
            "roc": 101,
            "precision_recall": 100,
        }
        for band in model["bands"].values():
            ends = np.array([band["low"], band["value"], band["high"]])
            assert (np.diff(ends, axis=0) >= 0).all()


def test_data_are_described(evaluated):
    _, _, evaluation = evaluated
    labels = evaluation["models"][0]["scores"]["labels"]
    described = evaluation["data"]
    assert described["images"] == len(labels)
    assert described["abnormal"] == sum(labels)
    assert described["source"] == "digits"


def test_each_kind_of_abnormal_images_is_judged_against_all_normals(evaluated):
    _, _, evaluation = evaluated
    model = evaluation["models"][0]
    labels, values = (np.array(model["scores"][key]) for key in ("labels", "values"))
    kinds = np.array(model["scores"]["sublabels"])
    assert set(model["by_sublabel"]) == set(kinds[labels == 1])
    assert len(model["by_sublabel"]) == 9
    for kind, figures in model["by_sublabel"].items():
        rows = (labels == 0) | (kinds == kind)
        assert figures["images"] == np.count_nonzero(kinds == kind)
        expected = reference.roc_auc_score(labels[rows], values[rows])
        assert figures["image_auroc"]["value"] == pytest.approx(expected)


def test_cases_are_the_most_extreme_of_each_outcome_failures_first(evaluated):
    bundles, out, evaluation = evaluated
    with np.load(out / "cases.npz", allow_pickle=False) as file:
        arrays = dict(file)
    outcomes = ["miss", "false_alarm", "hit", "correct_pass"]
    for index, (path, model) in enumerate(zip(bundles, evaluation["models"], strict=True)):
        loaded, cases = load_bundle(path), model["cases"]
        test = load_test(loaded.experiment.data)
        labels, scores = test.labels, np.array(model["scores"]["values"])
        called = scores > model["threshold"]["value"]
        order = [outcomes.index(case["outcome"]) for case in cases]
        assert order == sorted(order)
        assert [case["row"] for case in cases] == list(range(len(cases)))
        for number, (outcome, label, flag, worst) in enumerate(
            zip(outcomes, (1, 0, 1, 0), (0, 1, 1, 0), (1, -1, -1, 1), strict=True)
        ):
            members = np.sort(worst * scores[(labels == label) & (called == flag)])[:8] * worst
            found = [case["score"] for case in cases if case["outcome"] == outcome]
            np.testing.assert_allclose(found, members, err_msg=f"{number} {outcome}")
        rows = [pseudonyms(test.split.ids).index(case["id"]) for case in cases]
        np.testing.assert_array_equal(arrays[f"images_{index}"], test.split.images[rows][:, 0])
        again = Scorer.from_bundle(loaded).score_images(
            test.split.images[rows], maps=True, reconstructions=True
        )
        np.testing.assert_allclose(arrays[f"maps_{index}"], again.maps, atol=1e-3)
        levels = (again.reconstructions[:, 0] + 1) * 127.5
        np.testing.assert_allclose(arrays[f"reconstructions_{index}"], levels, atol=0.51)
        assert arrays[f"reconstructions_{index}"].dtype == np.uint8


def test_baselines_and_untrained_networks_stand_beside_the_models(evaluated):
    _, _, evaluation = evaluated
    names = [baseline["name"] for baseline in evaluation["baselines"]]
    assert names == [
        *("mean_image", "pca32", "knn5_standardised", "sharpness"),
        *("untrained first", "untrained second"),
    ]
    figures = {b["name"]: b["metrics"]["image_auroc"]["value"] for b in evaluation["baselines"]}
    assert figures["knn5_standardised"] > 0.95  # zeros against other digits are easy
    assert all(baseline["threshold"] is None for baseline in evaluation["baselines"])


def test_every_model_is_paired_with_all_that_follow_it(evaluated):
    _, _, evaluation = evaluated
    pairs = {(p["a"], p["b"]): p for p in evaluation["paired"] if p["metric"] == "image_auroc"}
    assert len(evaluation["paired"]) == 2 * len(pairs) == 2 * (7 + 6)
    # The first bundle holds the very networks its experiment and seed begin with.
    same = pairs["first@3", "untrained first@3"]
    assert same["difference"] == 0
    assert same["verdict"] == "no measurable difference"
    assert pairs["second@3", "untrained second@3"]["difference"] != 0
    assert pairs["first@3", "knn5_standardised"]["verdict"] == "b is better"
    assert pairs["first@3", "knn5_standardised"]["p_delong"] < 1e-6
    assert all(p["p_delong"] is None for p in evaluation["paired"] if p["metric"] == "image_ap")
    assert all(p["p_holm"] >= p["p_value"] for p in evaluation["paired"])
    assert all(model["by_group"] is None for model in evaluation["models"]), "one image each"


def test_bundle_without_calibration_is_ranked_but_not_judged(tmp_path):
    evaluation = evaluate(
        [bundle(tmp_path / "plain", calibrated=False)], None, tmp_path / "out", resamples=20
    )
    (model,) = evaluation["models"]
    assert set(model["metrics"]) == {"image_auroc", "image_ap", "image_pr_auc", *AT_95}
    assert (model["threshold"], model["cases"], model["map_range"]) == (None, [], None)
    assert model["scores"]["p_values"] is None
    assert "baselines" in evaluation


def test_bundles_of_one_name_are_told_apart_by_their_folders(tmp_path):
    paths = [bundle(tmp_path / place / "same", built_from=n) for n, place in enumerate("ab")]
    moved = [path.rename(tmp_path / f"copy-{n}") for n, path in enumerate(paths)]
    evaluation = evaluate(moved, None, tmp_path / "out", resamples=20)
    assert evaluation["paired"][0]["a"] == "same (copy-0)@3"
    assert evaluation["paired"][0]["b"] == "same (copy-1)@3"


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Noise, and noise with a bright square that a mask of twice the network's size marks."""
    root, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    for index in range(60):
        pixels = rng.integers(90, 130, (64, 64, 3)).astype(np.uint8)
        if index < 40:
            write(root / "train" / "normal" / f"{index}.png", pixels)
        elif index < 50:
            write(root / "test" / "normal" / f"{index}.png", pixels)
        else:
            mask = np.zeros((64, 64), np.uint8)
            top, left = rng.integers(0, 50, 2)
            mask[top : top + 12, left : left + 12] = 255
            pixels[mask > 0] = 250
            write(root / "test" / "abnormal" / f"{index}.png", pixels)
            write(root / "test" / "masks" / f"{index}.png", mask)
    return root


def test_masks_give_pixel_figures_in_colour_on_moved_data(squares, tmp_path):
    settings = {"root": str(squares), "channels": 3, "image_size": 32, "holdout": 0.5}
    path = bundle(tmp_path / "colour", "brainomaly", data=settings)
    loaded = load_bundle(path)
    moved = dataclasses.replace(DataConfig(), root=str(squares), holdout=0.5)
    evaluation = evaluate([path], moved, tmp_path / "out", baselines=True, resamples=50)
    (model,) = evaluation["models"]
    test = load_test(loaded.experiment.data)
    maps = Scorer.from_bundle(loaded).score_images(test.split.images, maps=True).maps
    resized = np.stack(
        [
            np.asarray(Image.fromarray(map_).resize((64, 64), Image.Resampling.BILINEAR))
            for map_ in maps
        ]
    )
    expected = reference.roc_auc_score(test.masks.ravel(), resized.ravel())
    found = model["metrics"]["pixel_auroc"]
    assert found["value"] == pytest.approx(expected, abs=1e-6)
    assert found["low"] - 1e-3 <= found["value"] <= found["high"] + 1e-3
    assert "pixel_ap" in model["metrics"]
    assert model["metrics"]["pixel_best_dice"]["value"] == pytest.approx(
        pixel_best_dice(test.masks, resized), abs=1e-6
    )
    for name, limit in (("pixel_aupro_30", 0.30), ("pixel_aupro_05", 0.05)):
        overlap = model["metrics"][name]
        assert overlap["value"] == pytest.approx(aupro(test.masks, resized, limit=limit), abs=1e-5)
        assert overlap["low"] - 1e-3 <= overlap["value"] <= overlap["high"] + 1e-3
    mean = next(b for b in evaluation["baselines"] if b["name"] == "mean_image")
    assert mean["metrics"]["pixel_auroc"]["value"] > 0.95
    with np.load(tmp_path / "out" / "cases.npz", allow_pickle=False) as file:
        assert file["images_0"].shape[1:] == (32, 32, 3)
        assert file["reconstructions_0"].shape == file["images_0"].shape


def test_subjects_of_several_images_are_judged_by_their_mean(squares, tmp_path):
    data = {"root": str(squares), "channels": 1, "image_size": 32, "holdout": 0.5,
            "group_pattern": r"^(\d[0-4]\.|\d(?=[5-9])|\d\.)"}  # fmt: skip
    # Of the files 40 to 49 those up to 44 are each a patient, the other five are one, and so on.
    evaluation = evaluate(
        [bundle(tmp_path / "grey", data=data)], None, tmp_path / "out", baselines=True, resamples=20
    )
    labels = np.repeat([0, 1], 6)
    for model in (*evaluation["models"], *evaluation["baselines"]):
        of = dict(zip(model["scores"]["groups"], model["scores"]["labels"], strict=True))
        members = {
            name: [value for group, value in zip(model["scores"]["groups"],
                                                 model["scores"]["values"], strict=True)
                   if group == name] for name in of
        }  # fmt: skip
        names = sorted(of, key=lambda name: of[name])
        assert sorted(map(len, members.values())) == [1] * 10 + [5] * 2
        means = [np.mean(members[name]) for name in names]
        found = model["by_group"]
        assert (found["groups"], found["abnormal"]) == (12, 6)
        assert found["image_auroc"]["value"] == pytest.approx(
            reference.roc_auc_score(labels, means)
        )
        assert found["image_ap"]["value"] == pytest.approx(
            reference.average_precision_score(labels, means)
        )
    assert evaluation["paired"]
    assert all(pair["p_delong"] is None for pair in evaluation["paired"])


def test_evaluation_without_a_bundle_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least one"):
        evaluate([], None, tmp_path)


def test_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write the evaluation"):
        evaluate([bundle(tmp_path / "b")], None, tmp_path / "file" / "out", resamples=5)
