import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torch.nn.modules.module import register_module_forward_hook

from gan_ray.artifacts.bundle import load_bundle
from gan_ray.config import ScoreConfig
from gan_ray.data.sources import load_test, load_training
from gan_ray.errors import ConfigError
from gan_ray.scoring.comparison import holm
from gan_ray.scoring.evaluate import evaluate
from gan_ray.scoring.heads import aucp_of_heads, head_name, make_heads, parse_head
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import make_score
from gan_ray.scoring.selection import aucp
from tests.scoring.test_evaluate import bundle, squares
from tests.scoring.toy import Blind, Toy, TwoHeads, toy

__all__ = ["squares"]

HEADS = ["l2", "ssim", "residual,smooth=1,top=0.02", "top=0.05"]


@contextmanager
def counted():
    """Count the calls of every layer of every network, and the rows that went through."""
    calls, rows = [], []

    def note(module, inputs, output):
        calls.append(type(module).__name__)
        rows.extend(len(tensor) for tensor in inputs if isinstance(tensor, torch.Tensor))

    hook = register_module_forward_hook(note)
    try:
        yield calls, rows
    finally:
        hook.remove()


def read(text, own=None, kind=Toy):
    return parse_head(text, own or ScoreConfig(name="residual"), toy(kind))


def test_a_named_head_starts_from_the_usual_settings():
    own = ScoreConfig(name="residual", smooth=3.0, top=0.5)
    assert read("residual", own) == ScoreConfig(name="residual")
    assert read(" l2 , smooth = 2, top=0.01", own) == ScoreConfig(name="l2", smooth=2, top=0.01)
    assert read("residual_features,feature_weight=0.5", own).feature_weight == 0.5


def test_a_head_without_a_name_changes_the_own_score():
    own = ScoreConfig(name="residual_features", feature_weight=4.0, smooth=3.0)
    expected = ScoreConfig(name="residual_features", feature_weight=4.0, smooth=3.0, top=0.1)
    assert read("top=0.1", own) == expected
    assert head_name(expected, toy()) == "residual_features,smooth=3,top=0.1,feature_weight=4"
    assert read("top=0.1", ScoreConfig()).name == "residual", "the paper's, by its name"


def test_a_head_reads_as_it_is_written():
    for text in ("ssim", "l1,smooth=0.5", "residual_features,top=0.02,feature_weight=3"):
        assert head_name(read(text), toy()) == text


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("sim", Toy, "Did you mean 'ssim'"),
        ("ssim,tops=1", Toy, "head 'ssim,tops=1': unknown setting 'tops'.*Did you mean 'top'"),
        ("ssim,top=x", Toy, "top takes a number, not 'x'"),
        ("ssim,top", Toy, "top takes a number, not ''"),
        ("smooth=inf", Toy, "smooth takes a number, not 'inf'"),
        ("ssim,top=2", Toy, "top=2.0"),
        ("ssim,feature_weight=2", Toy, "does not read score.feature_weight"),
        ("", Toy, "begins with no word.*names are residual, "),
        ("ssim", Blind, "lacks reconstruction"),
    ],
)
def test_a_head_that_cannot_work_is_refused_with_the_reason(text, kind, words):
    with pytest.raises(ConfigError, match=words):
        read(text, ScoreConfig(), kind)


def test_a_head_takes_the_scales_that_the_bundle_carries_and_is_refused_without():
    detector = toy(TwoHeads)
    own = ScoreConfig(name="scaled_features", scales={"residual_squared": 0.5})
    heads = make_heads(["scaled_features,pixel_weight=2", "feature_weight=3"], own, detector)
    assert [score.scales for score in heads.values()] == [own.scales] * 2
    with pytest.raises(ConfigError, match="gan-ray export --head scaled_features"):
        make_heads(["scaled_features"], ScoreConfig(name="residual"), detector)


def test_the_own_score_is_no_head_and_a_head_given_twice_is_one():
    own = ScoreConfig(name="residual", top=0.1)
    heads = make_heads(["residual", "l1", "residual,top=0.1", "l1,top=0"], own, toy())
    assert list(heads) == ["residual", "l1"]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A bundle on the digits with and without heads, and the calls of layers in both."""
    home = tmp_path_factory.mktemp("heads")
    path, found = bundle(home / "first"), {}
    for name, heads in {"none": [], "all": HEADS}.items():
        with counted() as (calls, rows):
            evaluation = evaluate([path], None, home / name, heads=heads, resamples=100)
        found[name] = evaluation, calls, rows
    return path, home, found


def test_heads_cost_no_second_pass_through_the_networks(evaluated):
    *_, found = evaluated
    (_, calls, rows), (_, more_calls, more_rows) = found["none"], found["all"]
    assert calls == more_calls
    assert rows == more_rows
    assert len(calls) > 10


@pytest.mark.parametrize("architecture", ["anogan", "f-unetgan", "brainomaly"])
def test_every_head_is_scored_from_one_look(architecture, tmp_path):
    loaded = load_bundle(bundle(tmp_path / "one", architecture, calibrated=False))
    heads = make_heads(["l1", "ssim", "residual,top=0.1"], loaded.score, loaded.detector)
    images = load_test(loaded.experiment.data).split.images[:6]
    with counted() as (calls, rows):
        plain = Scorer.from_bundle(loaded).score_images(images)
    with counted() as (more_calls, more_rows):
        result = Scorer.from_bundle(loaded, heads=heads).score_images(images, maps=True)
    assert (more_calls, more_rows) == (calls, rows)
    np.testing.assert_array_equal(result.scores, plain.scores)
    assert list(result.heads) == list(heads)
    for name, head in heads.items():
        alone = Scorer(loaded.detector, head).score_images(images, maps=True)
        np.testing.assert_array_equal(result.heads[name].scores, alone.scores)
        np.testing.assert_array_equal(result.heads[name].maps, alone.maps)


def test_figures_of_a_head_are_those_of_its_scores(evaluated):
    path, home, found = evaluated
    evaluation, *_ = found["all"]
    (model,) = evaluation["models"]
    assert json.loads((home / "all" / "evaluation.json").read_text()) == evaluation
    loaded = load_bundle(path)
    test = load_test(loaded.experiment.data)
    assert model["heads"]["own"] == model["score"] == "latent"
    expected = ["l2", "ssim", "residual,smooth=1,top=0.02", "latent,top=0.05"]
    assert list(model["heads"]["figures"]) == expected
    for text, (name, figures) in zip(HEADS, model["heads"]["figures"].items(), strict=True):
        head = parse_head(text, loaded.score, loaded.detector)
        judge = Scorer(loaded.detector, make_score(head, loaded.detector))
        scores = judge.score_images(test.split.images).scores
        np.testing.assert_allclose(figures["values"], scores, rtol=1e-6, err_msg=name)
        area = reference.roc_auc_score(test.labels, scores)
        assert figures["metrics"]["image_auroc"]["value"] == pytest.approx(area)
        assert set(figures["metrics"]) == {
            *("image_auroc", "image_ap", "image_pr_auc"),
            *("sensitivity_at_95", "specificity_at_95"),
        }, "thresholds and p-values are the own score's alone"


def test_the_own_score_is_as_without_heads(evaluated):
    *_, found = evaluated
    (plain,), (model,) = (found[name][0]["models"] for name in ("none", "all"))
    assert plain["heads"] is None
    for key in set(plain) - {"heads", "images_per_second"}:
        assert plain[key] == model[key], key


def test_heads_are_paired_with_the_own_score_and_corrected_for_their_number(evaluated):
    *_, found = evaluated
    (model,) = found["all"][0]["models"]
    heads, own = model["heads"], model["metrics"]["image_auroc"]["value"]
    assert {pair["a"] for pair in heads["paired"]} == {"latent"}
    assert len(heads["paired"]) == 2 * len(HEADS)
    for pair in heads["paired"]:
        if pair["metric"] == "image_auroc":
            other = heads["figures"][pair["b"]]["metrics"]["image_auroc"]["value"]
            assert pair["difference"] == pytest.approx(own - other)
            assert pair["p_delong"] is not None
    p_values = np.array([pair["p_value"] for pair in heads["paired"]])
    assert [pair["p_holm"] for pair in heads["paired"]] == holm(p_values).tolist()


def test_heads_have_pixel_figures_where_there_are_masks(squares, tmp_path):
    data = {"root": str(squares), "channels": 1, "image_size": 32, "holdout": 0.5}
    path = bundle(tmp_path / "grey", "brainomaly", data=data)
    evaluation = evaluate([path], None, tmp_path / "out", heads=["ssim", "l1"], resamples=10)
    (model,) = evaluation["models"]
    pixel = {name for name in model["metrics"] if name.startswith("pixel")}
    assert len(pixel) == 5
    for figures in model["heads"]["figures"].values():
        assert {name for name in figures["metrics"] if name.startswith("pixel")} == pixel
    area = {name: figures["metrics"]["pixel_auroc"]["value"]
            for name, figures in model["heads"]["figures"].items()}  # fmt: skip
    assert area["l1"] == pytest.approx(model["metrics"]["pixel_auroc"]["value"], abs=1e-6)
    assert area["ssim"] != pytest.approx(area["l1"], abs=1e-3)


def test_aucp_of_heads_needs_one_look_and_no_label(tmp_path):
    loaded = load_bundle(bundle(tmp_path / "one"))
    data = load_training(loaded.experiment.data)
    heads = make_heads(["residual", "ssim"], loaded.score, loaded.detector)
    with counted() as (calls, _):
        found = aucp_of_heads(Scorer.from_bundle(loaded, heads=heads), data.select, data.unlabeled)
    with counted() as (once, _):
        for part in (data.select, data.unlabeled):
            Scorer.from_bundle(loaded).score_images(part.images)
    assert calls == once
    for name, head in heads.items():
        normal, mixed = (
            Scorer(loaded.detector, head).score_images(part.images).scores
            for part in (data.select, data.unlabeled)
        )
        assert found[name].aucp == pytest.approx(aucp(normal, mixed))
        assert found[name].normals == len(data.select)
