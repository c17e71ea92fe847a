"""Weights in fewer bits: how far they move, what a bundle tells of it, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load

from gan_ray.__main__ import main
from gan_ray.artifacts import export as export_module
from gan_ray.artifacts.bundle import load_bundle
from gan_ray.artifacts.export import export
from gan_ray.artifacts.parity import verify
from gan_ray.artifacts.precision import loaded, stored
from gan_ray.config import from_dict
from gan_ray.data.sources import load_training
from gan_ray.errors import ArtifactError, ConfigError
from gan_ray.scoring.calibration import Calibration
from gan_ray.scoring.scorer import Scorer
from gan_ray.training.run import RunFolder

LOWER = ["bfloat16", "int8"]


@given(seed=st.integers(0, 2**32 - 1), magnitude=st.floats(1e-6, 1e6))
def test_a_weight_moves_by_no_more_than_its_precision_says(seed, magnitude):
    generator = torch.Generator().manual_seed(seed)
    weight = magnitude * torch.randn(5, 3, 2, 2, generator=generator)
    weight[2] = 0
    for precision in LOWER:
        found = loaded(stored({"w": weight}, precision))
        assert found.keys() == {"w"}
        assert found["w"].dtype == torch.float32
        allowed = weight.abs() / 256
        if precision == "int8":
            allowed = weight.flatten(1).abs().amax(1).view(-1, 1, 1, 1).expand_as(weight) / 253.9
        assert ((found["w"] - weight).abs() <= allowed).all()
        assert torch.equal(found["w"][2], weight[2])


@pytest.mark.parametrize("precision", LOWER)
def test_biases_norms_and_counts_stay_what_they_are(precision):
    kept = {"bias": torch.randn(7), "batches": torch.tensor(3), "gate.scale": torch.randn(4)}
    held = stored({**kept, "weight": torch.randn(4, 4)}, precision)
    assert held["weight"].dtype == {"bfloat16": torch.bfloat16, "int8": torch.int8}[precision]
    for tensors in (held, loaded(held)):
        assert all(torch.equal(tensors[name], tensor) for name, tensor in kept.items())


def test_rounding_twice_is_rounding_once():
    weight = {"w": torch.randn(16, 9)}
    for precision in LOWER:
        once = loaded(stored(weight, precision))
        torch.testing.assert_close(loaded(stored(once, precision)), once, rtol=1e-6, atol=0)


@pytest.fixture(scope="module")
def exact(tmp_path_factory, finished):
    return export(finished, tmp_path_factory.mktemp("exact") / "bundle", fpr=0.2)


@pytest.fixture(scope="module", params=LOWER)
def lower(request, tmp_path_factory, finished):
    path = tmp_path_factory.mktemp(request.param) / "bundle"
    return export(finished, path, fpr=0.2, precision=request.param)


def test_a_bundle_of_lower_precision_tells_how_far_its_scores_moved(exact, lower, finished):
    images = load_training(RunFolder(finished).experiment().data).calibrate.images
    bundles = [load_bundle(path) for path in (exact, lower)]
    before, after = (Scorer.from_bundle(b).score_images(images).scores for b in bundles)
    drift = bundles[1].manifest.drift
    gaps = np.abs(after - before)
    assert drift.images == len(images)
    assert 0 < drift.mean <= drift.largest
    assert drift.largest == pytest.approx(gaps.max(), rel=1e-3)
    assert drift.mean == pytest.approx(gaps.mean(), rel=1e-3)
    assert drift.spread == pytest.approx(before.std(), rel=1e-3)
    judged = [b.calibration.abnormal(s) for b, s in zip(bundles, (before, after), strict=True)]
    assert drift.flips == (judged[0] != judged[1]).sum()
    assert bundles[0].manifest.drift is None


def test_threshold_and_golden_scores_are_those_of_the_rounded_weights(exact, lower, finished):
    images = load_training(RunFolder(finished).experiment().data).calibrate.images
    bundle = load_bundle(lower)
    scores = Scorer.from_bundle(bundle).score_images(images).scores
    calibration = from_dict(Calibration, bundle.manifest.calibration)
    assert sorted(scores.tolist()) == pytest.approx(calibration.scores, abs=1e-6)
    assert calibration.threshold != load_bundle(exact).calibration.threshold
    report = verify(lower)
    assert report["max_score_difference"] < 1e-6
    assert report["precision"] == bundle.manifest.precision
    assert report["drift"]["mean"] == bundle.manifest.drift.mean


def test_the_file_holds_what_the_precision_says(exact, lower):
    precision = load_bundle(lower).manifest.precision
    wide, narrow = (load((p / "weights.safetensors").read_bytes()) for p in (exact, lower))
    large = [name for name, tensor in wide.items() if tensor.ndim > 1]
    assert large
    for name in large:
        assert narrow[name].element_size() == {"bfloat16": 2, "int8": 1}[precision]
    sizes = [(path / "weights.safetensors").stat().st_size for path in (exact, lower)]
    assert sizes[1] < 0.7 * sizes[0]


def test_a_graph_carries_the_rounded_weights(finished, tmp_path):
    path = export(finished, tmp_path / "b", fpr=0.2, precision="int8", formats="pt2")
    assert verify(path, trusted=True)["max_score_difference"] < 1e-5


def test_scores_that_move_too_far_are_refused(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export_module, "DRIFT", 1e-6)
    out = tmp_path / "bundle"
    arguments = ["export", str(finished), "-o", str(out), "--fpr", "0.2", "--precision", "int8"]
    assert main(arguments) == 3
    assert "the lower precision moves the score of a held-out normal" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_precision_that_the_weights_do_not_have_is_refused(lower, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for part in lower.iterdir():
        (copy / part.name).write_bytes(part.read_bytes())
    manifest = load_bundle(lower).manifest
    other = "int8" if manifest.precision == "bfloat16" else "bfloat16"
    (copy / "manifest.json").write_bytes(replace(manifest, precision=other).to_json())
    with pytest.raises(ArtifactError, match="does not fit the networks"):
        load_bundle(copy)


def test_an_unknown_precision_names_those_that_exist(finished, tmp_path):
    with pytest.raises(ConfigError, match="known are bfloat16, float32, int8"):
        export(finished, tmp_path / "b", precision="int4")  # type: ignore[arg-type]


def test_a_manifest_from_before_precisions_reads_as_float32(exact):
    plain = json.loads((exact / "manifest.json").read_text())
    assert (plain["precision"], plain["drift"]) == ("float32", None)
