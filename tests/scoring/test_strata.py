"""Thresholds of their own for scanners: from the command line to the decision on an image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gan_ray.__main__ import main
from gan_ray.artifacts.bundle import load_bundle
from gan_ray.data.sources import load_test, load_training
from gan_ray.data.strata import strata_of_calibration, strata_of_test
from gan_ray.errors import ConfigError, DataError
from gan_ray.scoring.scorer import Scorer
from tests.data.trees import png, write_folder

FPR = "0.2"
C = {13, 37}
"""Films of the scanner that has hardly been used; those of training are held out, by their hash."""


def films() -> dict[str, bytes]:
    """Normals of two scanners, b being noisier, of a third with few films, and of one unknown."""
    rng, files = np.random.default_rng(0), {}
    rows = ["file,split,label,scanner"]
    for part, label, count in (
        ("train", "normal", 120), ("test", "normal", 60), ("test", "abnormal", 8)
    ):  # fmt: skip
        for number in range(count):
            scanner = "" if number == 0 else "c" if number in C else "ab"[number % 15 > 6]
            noise = rng.normal(0, 60 if scanner == "b" else 5, (32, 32))
            name = f"{part}/{label}/{number:03d}.png"
            files[name] = png(np.clip(128 + noise, 0, 255).astype(np.uint8))
            rows.append(f"{name},{part},{label},{scanner}")
    return files | {"manifest.csv": "\n".join(rows).encode()}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained system with a calibration by scanner, its bundle and its evaluation."""
    home = tmp_path_factory.mktemp("scanners")
    root = write_folder(home / "films", films())
    data = ["--data.root", root, "--data.source", "csv", "--data.image-size", "32"]
    short = ["--train.images", "64", "--train.samples", "0", "--data.holdout", "0.6"]
    short += ["--train.report-every", "64"]
    run, bundle = str(home / "run"), str(home / "bundle")
    train = ["train", "ganomaly", "--preset", "tiny", "--local", "--out", run, *data, *short]
    assert main(train) == 0
    assert main(["calibrate", run, "--fpr", FPR, "--by", "scanner"]) == 0
    assert main(["export", run, "-o", bundle]) == 0
    assert main(["evaluate", bundle, "--out", str(home / "evaluation")]) == 0
    return home


def test_export_carries_the_thresholds_that_calibrate_set(home: Path):
    bundle = load_bundle(home / "bundle")
    calibration, data = bundle.calibration, bundle.experiment.data
    strata = strata_of_calibration(data, "scanner")
    scores = Scorer.from_bundle(bundle).score_images(load_training(data).calibrate.images).scores
    assert (calibration.by, set(calibration.strata)) == ("scanner", {"a", "b"})
    assert calibration.few == {"c": int((strata == "c").sum())}
    for name, threshold in calibration.strata.items():
        np.testing.assert_allclose(threshold.scores, np.sort(scores[strata == name]), rtol=1e-6)


def test_evaluation_judges_each_image_by_its_scanner_and_tells_the_rates(home: Path, capsys):
    evaluation = json.loads((home / "evaluation" / "evaluation.json").read_text())
    (model,) = evaluation["models"]
    bundle = load_bundle(home / "bundle")
    strata = strata_of_test(bundle.experiment.data, "scanner").tolist()
    rows = list(zip(strata, model["scores"]["labels"], model["scores"]["values"],
                    model["scores"]["abnormal"], strict=True))  # fmt: skip
    for stratum, _, score, called in rows:
        assert called == (score > bundle.calibration.of(stratum).threshold)
    told = {row["stratum"]: row for row in model["threshold"]["strata"]}
    assert {name: row["own"] for name, row in told.items()} == {
        "": False, "a": True, "b": True, "c": False,
    }  # fmt: skip
    for name, row in told.items():
        normal = [called for stratum, label, _, called in rows if (stratum, label) == (name, 0)]
        assert (row["normals"], row["flagged"]) == (len(normal), sum(normal))
        assert row["id"] == bundle.calibration.of(name).id
    assert main(["evaluate", str(home / "bundle"), "--out", str(home / "again")]) == 0
    printed = capsys.readouterr().out
    assert f"scanner 'b': {told['b']['flagged']} of {told['b']['normals']} normal" in printed
    assert "scanner not known: " in printed
    assert main(["report", str(home / "again"), "-o", str(home / "report.html")]) == 0
    assert "normal images" in (home / "report.html").read_text()


def test_calibrate_says_which_scanner_has_too_few_normals(home: Path, capsys):
    assert main(["calibrate", str(home / "run"), "--fpr", FPR, "--by", "scanner"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "scanner 'c': " in told
    assert "held-out normals are too few for a threshold of its own at 20" in told
    assert main(["calibrate", str(home / "run"), "--fpr", FPR, "--by", "scanner", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert set(summary["strata"]) == {"a", "b"}
    assert "scores" not in summary["strata"]["a"]


def test_strata_lie_in_the_order_of_the_images(home: Path):
    data = load_bundle(home / "bundle").experiment.data
    test, strata = load_test(data).split, strata_of_test(data, "scanner")
    noisy = test.images.reshape(len(test), -1).std(axis=1) > 30
    assert (noisy == (strata == "b")).all()


@pytest.mark.parametrize(
    ("column", "error", "reason"),
    [
        ("label", ConfigError, "of an image that is to be scored it is not known"),
        ("group", ConfigError, "all held out or all tested"),
        ("scaner", DataError, "'scaner' are needed"),
    ],
)
def test_a_column_that_tells_no_strata_is_refused(home: Path, column, error, reason):
    with pytest.raises(error, match=reason):
        strata_of_calibration(load_bundle(home / "bundle").experiment.data, column)


def test_data_without_a_manifest_have_no_strata(home: Path, tmp_path: Path, capsys):
    train = ["train", "ganomaly", "--preset", "tiny", "--local", "--out", str(tmp_path / "run"),
             "--data.root", str(home / "films"), "--train.images", "32",
             "--data.image-size", "32", "--train.samples", "0"]  # fmt: skip
    assert main(train) == 0
    assert main(["calibrate", str(tmp_path / "run"), "--fpr", "0.2", "--by", "scanner"]) == 2
    assert "Train with --data.manifest" in capsys.readouterr().err
