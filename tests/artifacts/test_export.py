import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_ray.artifacts import export as export_module
from gan_ray.artifacts.bundle import load_bundle
from gan_ray.artifacts.export import calibrate_run, export
from gan_ray.artifacts.parity import verify
from gan_ray.config import from_dict
from gan_ray.data.sources import load_training
from gan_ray.errors import ArtifactError, ConfigError, DataError
from gan_ray.heads import rank
from gan_ray.scoring.calibration import Calibration
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import make_score
from gan_ray.scoring.selection import aucp
from gan_ray.training.run import RunFolder, load_detector


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def held_out(run: Path) -> np.ndarray:
    return load_training(RunFolder(run).experiment().data).calibrate.images


def trained_scores(run: Path, images: np.ndarray, checkpoint="best") -> np.ndarray:
    detector, experiment, _ = load_detector(run, checkpoint)
    return Scorer(detector, make_score(experiment.score, detector)).score_images(images).scores


def test_exported_bundle_scores_and_decides_as_the_run_does(finished, tmp_path):
    path = export(finished, tmp_path / "bundle", fpr=0.2)
    bundle = load_bundle(path)
    images = held_out(finished)
    found = Scorer.from_bundle(bundle).score_images(images).scores
    assert np.array_equal(found, trained_scores(finished, images))
    assert bundle.calibration is not None
    assert bundle.calibration.images == len(images)
    assert 0 < bundle.calibration.abnormal(found).mean() <= 0.2
    low, high = bundle.calibration.map_range
    assert 0 <= low < high


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_manifest_tells_which_checkpoint_it_is_and_why(finished, tmp_path, checkpoint):
    manifest = load_bundle(
        export(finished, tmp_path / "b", checkpoint=checkpoint, fpr=0.2, name="n", version="3")
    ).manifest
    run = RunFolder(finished)
    images = run.best() if checkpoint == "best" else 64
    row = next(row for row in run.metrics() if row["images"] == images)
    assert manifest.reference == "n@3"
    assert manifest.training.images == images
    assert manifest.training.stage == row["stage"]
    reason = run.get_json("selection.json")["reason"]
    chosen = {"best": reason, "last": "the last checkpoint"}[checkpoint]
    assert manifest.training.selection == chosen
    assert manifest.metrics == {k: v for k, v in row.items() if k.startswith("val/")}
    assert manifest.metrics
    assert manifest.data_fingerprint == load_training(run.experiment().data).fingerprint
    assert manifest.score["name"] == "residual"
    assert {"gan-ray", "torch", "python"} <= set(manifest.software)


def test_best_and_last_are_different_weights(finished, tmp_path):
    best = export(finished, tmp_path / "best", fpr=0.2)
    last = export(finished, tmp_path / "last", checkpoint="last", fpr=0.2)
    name = "weights.safetensors"
    assert (best / name).read_bytes() != (last / name).read_bytes()


def test_exporting_twice_gives_the_same_bundle(finished, tmp_path):
    first, second = (export(finished, tmp_path / name, fpr=0.2) for name in "ab")
    assert load_bundle(first).manifest.digest == load_bundle(second).manifest.digest


def test_calibrate_writes_the_threshold_and_export_takes_its_rate(run, tmp_path):
    calibration = calibrate_run(run, 0.3)
    stored = json.loads((run / "threshold.json").read_text())
    assert stored["value"] == calibration.threshold
    assert (stored["fpr"], stored["images"]) == (0.3, calibration.images)
    assert stored["checkpoint"] == RunFolder(run).best()
    assert from_dict(Calibration, stored["calibration"]) == calibration
    assert load_bundle(export(run, tmp_path / "b")).calibration == calibration
    assert load_bundle(export(run, tmp_path / "c", fpr=0.2)).calibration.fpr == 0.2


def test_rate_that_the_held_out_normals_cannot_promise_is_refused(finished, tmp_path):
    with pytest.raises(ConfigError, match="are too few for a false-positive rate"):
        export(finished, tmp_path / "bundle", fpr=0.001)
    assert list(tmp_path.iterdir()) == []


def drifting(shift: float):
    """Give a `load_detector` whose detector depends on something that no weight file holds."""

    def load(run, checkpoint="best"):
        detector, experiment, images = load_detector(run, checkpoint)
        generator = detector.networks["generator"]
        generator.register_forward_hook(lambda module, given, output: output + shift)
        return detector, experiment, images

    return load


def test_parity_gate_refuses_other_scores_and_leaves_nothing(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "load_detector", drifting(0.05))
    with pytest.raises(
        ArtifactError, match=r"held-out normals, .*: scores changed.*allowed: 0\.0001"
    ):
        export(finished, tmp_path / "bundle", fpr=0.2)
    assert list(tmp_path.iterdir()) == []


def test_parity_gate_refuses_a_flipped_decision_within_the_tolerance(
    finished, tmp_path, monkeypatch
):
    refusals = []
    for sign in (1, -1):  # one of the directions lifts the image at the threshold above it
        monkeypatch.setattr(export_module, "load_detector", drifting(sign * 5e-5))
        try:
            export(finished, tmp_path / f"bundle{sign}", fpr=0.2)
        except ArtifactError as error:
            refusals.append(str(error))
    assert len(refusals) == 1
    assert f" 1 of {len(held_out(finished))} decisions flipped" in refusals[0]
    assert len(list(tmp_path.iterdir())) == 1


def test_parity_gate_lets_noise_of_the_last_bit_pass(finished, tmp_path, monkeypatch):
    for shift in (1e-6, -1e-6):  # moves scores of 0.1 by up to 6e-8, up or down
        monkeypatch.setattr(export_module, "load_detector", drifting(shift))
        export(finished, tmp_path / f"bundle{shift}", fpr=0.2)


def test_existing_place_is_refused_before_anything_is_scored(finished, tmp_path):
    (tmp_path / "bundle").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        export(finished, tmp_path / "bundle", fpr=0.2)
    assert list((tmp_path / "bundle").iterdir()) == []


@pytest.mark.parametrize("wrong", [{"name": "a/b"}, {"name": ""}, {"version": ".."}])
def test_a_name_that_cannot_be_one_is_refused_before_the_run_is_read(wrong, tmp_path):
    with pytest.raises(ConfigError, match=f"--{next(iter(wrong))} .* is not allowed"):
        export(tmp_path / "no-run", tmp_path / "bundle", **wrong)


def test_run_on_other_data_is_refused(run, tmp_path):
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "data": "another"}))
    with pytest.raises(ConfigError, match="trained on other data"):
        export(run, tmp_path / "bundle", fpr=0.2)


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="no run in"):
        export(tmp_path, tmp_path / "bundle")


@pytest.mark.parametrize("formats", ["safetensors,pt", "safetensor", ""])
def test_unknown_format_names_those_that_exist(finished, tmp_path, formats):
    with pytest.raises(ConfigError, match="known are onnx, pt2, safetensors"):
        export(finished, tmp_path / "bundle", formats=formats)


def test_verify_reports_a_sound_bundle(pristine):
    report = verify(pristine)
    assert report["bundle"] == "tiny-brainomaly@1"
    assert report["golden_images"] == 8
    assert report["max_score_difference"] == 0.0
    assert len(report["digest"]) == 64
    assert json.loads(json.dumps(report)) == report


def test_verify_refuses_weights_that_are_sound_but_not_the_exported_ones(bundle, forge):
    from safetensors.torch import load, save

    weights = load((bundle / "weights.safetensors").read_bytes())
    generator = torch.Generator().manual_seed(0)
    for tensor in weights.values():
        tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    forge({"weights.safetensors": save(weights)})
    load_bundle(bundle)
    with pytest.raises(
        ArtifactError, match=r"golden images of tiny-brainomaly@1, weights.*: scores changed"
    ):
        verify(bundle)


def test_a_head_stands_in_the_manifest_and_has_a_threshold_of_its_own(finished, tmp_path):
    bundle = load_bundle(export(finished, tmp_path / "b", fpr=0.2, head="ssim,top=0.1"))
    assert (bundle.manifest.score["name"], bundle.manifest.score["top"]) == ("ssim", 0.1)
    assert bundle.experiment.score == RunFolder(finished).experiment().score
    scores = Scorer.from_bundle(bundle).score_images(held_out(finished)).scores
    assert sorted(scores.tolist()) == pytest.approx(bundle.calibration.scores)
    verify(bundle.path)
    with pytest.raises(ConfigError, match="Did you mean 'ssim'"):
        export(finished, tmp_path / "c", fpr=0.2, head="sim")


def test_heads_are_ranked_on_the_data_of_the_training_alone(finished, tmp_path):
    path = export(finished, tmp_path / "b", fpr=0.2)
    data = load_training(RunFolder(finished).experiment().data)
    rows = rank(str(path))
    assert {row["head"] for row in rows} == {"residual", "residual_squared", "ssim", "l1", "l2"}
    assert [row["aucp"] for row in rows] == sorted((r["aucp"] for r in rows), reverse=True)
    by_head = {row["head"]: row for row in rows}
    assert by_head["residual"]["aucp"] == pytest.approx(
        aucp(*(trained_scores(finished, part.images) for part in (data.select, data.unlabeled)))
    )
    with pytest.raises(ConfigError, match="trained on other data"):
        rank(str(with_manifest(path, tmp_path / "other", data_fingerprint="0" * 16)))


def with_manifest(path: Path, to: Path, **changes) -> Path:
    shutil.copytree(path, to)
    manifest = replace(load_bundle(path).manifest, **changes)
    (to / "manifest.json").write_bytes(manifest.to_json())
    return to
