"""From a run to a bundle, through a gate: what was trained and what is shipped score alike."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from gan_ray.artifacts.bundle import add_files, load_bundle, write_bundle
from gan_ray.artifacts.folder import new_folder, refuse_existing
from gan_ray.artifacts.formats import FORMATS, refuse_without_packages, write_graphs
from gan_ray.artifacts.golden import Golden, golden_classes, golden_images
from gan_ray.artifacts.graph import refuse_search
from gan_ray.artifacts.manifest import (
    WEIGHTS,
    Drift,
    Manifest,
    Training,
    is_plain_name,
    software,
)
from gan_ray.artifacts.parity import LAST_BITS, OTHER_BITS, replays, same
from gan_ray.artifacts.precision import Precision, loaded, stored
from gan_ray.config import Experiment, ScoreConfig, to_dict
from gan_ray.data.sources import Split, load_training
from gan_ray.data.strata import strata_of_calibration
from gan_ray.data.transforms import preprocessing_hash
from gan_ray.detector import Detector
from gan_ray.errors import ArtifactError, ConfigError, unknown
from gan_ray.scoring.calibration import Calibration, calibrate
from gan_ray.scoring.heads import parse_head
from gan_ray.scoring.scales import fit_scales
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import make_score
from gan_ray.training.run import Checkpoint, RunFolder, load_detector

FPR = 0.05
"""False-positive rate where none is stated."""
DRIFT = 0.1
"""Largest mean difference of scores by weights of a lower precision, as a share of the standard
deviation of the float32 scores of held-out normals."""

_WEIGHTS_ALONE = "safetensors"
_PARITY_IMAGES = 200
_THRESHOLD = "threshold.json"


def export(
    run: str | Path,
    out: str | Path,
    *,
    checkpoint: Checkpoint = "best",
    name: str | None = None,
    version: str = "1",
    fpr: float | None = None,
    by: str | None = None,
    formats: str = _WEIGHTS_ALONE,
    precision: Precision = "float32",
    head: str = "",
    device: str = "cpu",
) -> Path:
    """Write the bundle of a run's checkpoint to the folder `out`, as a whole or not at all.

    The threshold is set on held-out normals that neither training nor selection saw, for `fpr`,
    and one for each stratum that the column `by` of the manifest tells; left out, they are those of
    the last `gan-ray calibrate`, or 0.05 and none. `head` is the score to ship, as `scoring.heads`
    reads it, in place of the experiment's. `formats` names graphs to put beside the weights, which
    are always there (`artifacts.formats`). A lower `precision` rounds the weights first: threshold
    and golden scores are those of the rounded detector, and the manifest tells how far scores
    moved. Up to 200 of the held-out normals and the golden images are then scored by the detector
    in memory, by the bundle read back and by each of its graphs.

    Raises:
        ArtifactError: a score differs by more than 1e-4 or a decision flips, or the precision moves
            scores too far (nothing is left behind); torch cannot write the detector in a format; or
            the run has no usable checkpoint.
        ConfigError: an unknown format or precision, a graph of a detector that searches or without
            the packages it takes, a head that cannot work, a name or version that cannot be one,
            `out` exists, other data than the run's, too few held-out normals for `fpr`, or no
            strata in column `by`.
    """
    graphs = _graphs(formats)
    if precision not in get_args(Precision):
        raise ConfigError(unknown("precision", precision, get_args(Precision)))
    for option, text in {"--name": name, "--version": version}.items():
        if text is not None and not is_plain_name(text):
            raise ConfigError(
                f"{option} {text!r} is not allowed: take up to 128 letters, digits, dots, dashes "
                "and underscores, beginning with a letter or digit"
            )
    refuse_existing(Path(out))
    trained = exact = _open(run, checkpoint, device, head)
    if graphs:
        refuse_search(trained.detector)
    stated_rate, stated_column = exact.stated
    rate = stated_rate if fpr is None else fpr
    column = stated_column if by is None else by
    if precision != "float32":
        trained = _rounded(exact, precision)
    calibration = _calibrate(trained, rate, column)
    images = golden_images(trained.detector.image)
    kinds = golden_classes(images, trained.detector.image)
    golden = Golden(images, trained.scorer.score_images(images, classes=kinds).scores)
    manifest = _describe(trained, name or trained.experiment.architecture, version, calibration)
    if trained is not exact:
        drift = _drift(exact, _calibrate(exact, rate, column), trained, calibration)
        manifest = replace(manifest, precision=precision, drift=drift)
    sample = trained.held_out.images[trained.sample], trained.held_out.classes[trained.sample]
    with new_folder(Path(out)) as draft:
        write_bundle(draft, trained.detector, manifest, golden=golden)
        if graphs:
            shipped = load_bundle(draft)
            made = make_score(shipped.score, shipped.detector)
            add_files(draft, write_graphs(shipped.detector, made, graphs))
        scorers, _ = replays(load_bundle(draft), device=device, trusted=True)
        for what, (rows, classes) in {
            "held-out normals": sample,
            "golden images": (images, kinds),
        }.items():
            expected = trained.scorer.score_images(rows, classes=classes).scores
            for file, scores in scorers.items():
                bits = LAST_BITS if file == WEIGHTS else OTHER_BITS
                found = scores(rows, classes)
                same(f"{what}, {file}", expected, found, calibration, bits=bits)
    return Path(out)


def calibrate_run(
    run: str | Path,
    fpr: float = FPR,
    *,
    by: str = "",
    checkpoint: Checkpoint = "best",
    device: str = "cpu",
) -> Calibration:
    """Set the threshold of a run's checkpoint on its held-out normals; writes `threshold.json`.

    `by` is a column of the manifest whose values (scanner, site, product) get thresholds of their
    own. The file holds `value`, `fpr` and `images` (number of normals) as `evaluation.json` does,
    the checkpoint by its images of training, and the whole calibration.

    Raises:
        ConfigError: other data than the run's, too few held-out normals for `fpr`, or a column
            that tells no strata.
    """
    trained = _open(run, checkpoint, device)
    calibration = _calibrate(trained, fpr, by)
    summary = {"value": calibration.threshold, "fpr": fpr, "images": calibration.images}
    details = {"checkpoint": trained.images, "calibration": to_dict(calibration)}
    trained.folder.put_json(_THRESHOLD, summary | details)
    return calibration


@dataclass(frozen=True)
class _Trained:
    """A run's checkpoint with what it takes to score and to describe it."""

    folder: RunFolder
    checkpoint: Checkpoint
    detector: Detector
    experiment: Experiment[Any]
    images: int
    score: ScoreConfig
    scorer: Scorer
    select: Split
    held_out: Split
    fingerprint: str

    @property
    def sample(self) -> slice:
        """Rows of at most 200 of the held-out normals, evenly spread."""
        return slice(None, None, max(1, -(-len(self.held_out) // _PARITY_IMAGES)))

    @property
    def stated(self) -> tuple[float, str]:
        """The false-positive rate and the column of strata of the last `calibrate`, if any."""
        stored = self.folder.get_json(_THRESHOLD)
        if stored is None:
            return FPR, ""
        return float(stored["fpr"]), str(stored["calibration"].get("by", ""))

    @property
    def selection(self) -> str:
        """How the checkpoint was chosen, in words."""
        chosen = self.folder.get_json("selection.json")
        if self.checkpoint == "last" or chosen is None:
            return "the last checkpoint"
        return str(chosen["reason"])


def _open(run: str | Path, checkpoint: Checkpoint, device: str, head: str = "") -> _Trained:
    folder = RunFolder(run)
    detector, experiment, images = load_detector(folder, checkpoint)
    data = load_training(experiment.data)
    trained_on = (folder.get_json("environment.json") or {}).get("data", data.fingerprint)
    if trained_on != data.fingerprint:
        raise ConfigError(
            f"{folder.uri} was trained on other data (fingerprint {trained_on}, now "
            f"{data.fingerprint}): its held-out normals are not known. Put the same images back "
            f"at --data.root {experiment.data.root}, or train again"
        )
    named = replace(experiment.score, name=experiment.score.name or detector.score)
    chosen = parse_head(head, named, detector) if head else named
    score = fit_scales(chosen, detector, data.select, device=device)
    made = make_score(score, detector)
    return _Trained(
        folder=folder,
        checkpoint=checkpoint,
        detector=detector,
        experiment=experiment,
        images=images,
        score=score,
        scorer=Scorer(detector, made, fit=experiment.data.fit, device=device),
        select=data.select,
        held_out=data.calibrate,
        fingerprint=data.fingerprint,
    )


def _graphs(formats: str) -> list[str]:
    """Give the graphs that `--format` names, which this installation can write and replay."""
    names = formats.split(",")
    for name in names:
        if name not in (_WEIGHTS_ALONE, *FORMATS):
            raise ConfigError(unknown("bundle format", name, (_WEIGHTS_ALONE, *FORMATS)))
    graphs = [name for name in FORMATS if name in names]
    for name in graphs:
        refuse_without_packages(FORMATS[name])
    return graphs


def _rounded(exact: _Trained, precision: Precision) -> _Trained:
    """Give the same checkpoint with weights as a bundle of this precision gives them back."""
    detector = copy.deepcopy(exact.detector)
    detector.load_state_dict(loaded(stored(detector.state_dict(), precision)))
    device = exact.scorer.device
    score = fit_scales(exact.score, detector, exact.select, device=device)
    made = make_score(score, detector)
    scorer = Scorer(detector, made, fit=exact.experiment.data.fit, device=device)
    return replace(exact, detector=detector, score=score, scorer=scorer)


def _drift(
    exact: _Trained, by_exact: Calibration, rounded: _Trained, by_rounded: Calibration
) -> Drift:
    """Tell how far the scores of held-out normals moved, each judged by its own threshold.

    Raises:
        ArtifactError: too far.
    """
    images, classes = exact.held_out.images, exact.held_out.classes
    before, after = (
        t.scorer.score_images(images, classes=classes).scores for t in (exact, rounded)
    )
    gaps = np.abs(after - before)
    drift = Drift(
        images=len(gaps),
        largest=float(gaps.max()),
        mean=float(gaps.mean()),
        spread=float(before.std()),
        flips=int((by_exact.abnormal(before) != by_rounded.abnormal(after)).sum()),
    )
    if not drift.mean <= DRIFT * drift.spread:
        raise ArtifactError(
            f"the lower precision moves the score of a held-out normal by {drift.mean:.3g} on "
            f"average, where at most {DRIFT:g} of their standard deviation {drift.spread:.3g} is "
            "allowed: it would judge other images than the run does. Leave --precision out, or "
            "take bfloat16, which rounds less than int8"
        )
    return drift


def _calibrate(trained: _Trained, fpr: float, by: str) -> Calibration:
    data = trained.experiment.data
    strata = strata_of_calibration(data, by) if by else None
    images, classes = trained.held_out.images, trained.held_out.classes
    scores = trained.scorer.score_images(images, classes=classes).scores
    sample = trained.scorer.score_images(
        images[trained.sample], classes=classes[trained.sample], maps=True
    )
    groups = trained.held_out.groups
    return calibrate(scores, fpr, sample.maps, groups=groups, by=by, strata=strata)


def _describe(trained: _Trained, name: str, version: str, calibration: Calibration) -> Manifest:
    experiment, detector = trained.experiment, trained.detector
    reports = trained.folder.metrics()
    report = next((row for row in reports if row["images"] == trained.images), {})
    figures = {key: value for key, value in report.items() if key.startswith("val/")}
    return Manifest(
        name=name,
        version=version,
        architecture=experiment.architecture,
        experiment=to_dict(experiment),
        image=detector.image,
        fit=experiment.data.fit,
        preprocessing=preprocessing_hash(detector.image, experiment.data.fit),
        score=to_dict(trained.score),
        calibration=to_dict(calibration),
        data_fingerprint=trained.fingerprint,
        metrics={key: value for key, value in figures.items() if math.isfinite(value)},
        passes_per_image=detector.passes_per_image,
        software=software(),
        training=Training(
            images=trained.images, stage=report.get("stage", ""), selection=trained.selection
        ),
        files={},
    )
