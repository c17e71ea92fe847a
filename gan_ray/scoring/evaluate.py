"""Evaluation: the one place where test labels meet scores, once, after everything is decided.

Writes `evaluation.json` (figures with 95 % intervals, paired tests, scores) and `cases.npz`
(images, reconstructions and maps of telling cases). Neither names a file or a patient.
"""

from __future__ import annotations

import dataclasses
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_curve

from gan_ray.artifacts.bundle import Bundle, load_bundle
from gan_ray.config import DataConfig, fingerprint
from gan_ray.data.sources import TestData, load_test, load_training
from gan_ray.data.strata import strata_of_test
from gan_ray.errors import ConfigError, DataError, StorageError
from gan_ray.names import pseudonym, pseudonyms
from gan_ray.scoring.baselines import Judge, fit_baselines, untrained
from gan_ray.scoring.calibration import Calibration, realised
from gan_ray.scoring.comparison import compare
from gan_ray.scoring.curves import CURVES, Curve
from gan_ray.scoring.heads import head_name, judge_heads, make_heads
from gan_ray.scoring.intervals import interval, intervals, intervals_and_bands
from gan_ray.scoring.metrics import DECISIONS, RANKING, Metric, auroc, average_precision
from gan_ray.scoring.pixels import pixel_figures
from gan_ray.scoring.reliability import RELIABILITY
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.subjects import by_subject, repeat

SCHEMA = 1
FEWEST_SUBJECTS = 5
"""Normal and abnormal subjects without which no figure of subjects is given."""
CASES = 8
"""Cases kept of each outcome."""


@dataclass(frozen=True)
class _Contestant:
    """Something that scores the test images, and what the evaluation says about it."""

    name: str
    version: str
    architecture: str
    score: str
    """Of a model, as `heads.head_name` writes it."""
    judge: Judge
    test: TestData
    calibration: Calibration | None = None
    strata: np.ndarray | None = None
    """[N] strings, where the calibration asks for them; empty where an image's is not known."""

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name


def evaluate(
    bundles: Sequence[Path | str],
    data: DataConfig | None,
    out: Path,
    *,
    heads: Sequence[str] = (),
    baselines: bool = False,
    resamples: int = 1000,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Score the test split with each bundle and write what came out into the folder `out`.

    `data` says where the images are; without it, where the first bundle's training found them.
    Size, channels and fit are each bundle's own, so bundles of different sizes meet on the same
    files. `heads` are other scores of each bundle's evidence, as `scoring.heads` reads them, from
    the same pass; to choose the best of them here is to tune to the test. `baselines` adds the
    trivial detectors and each bundle's own networks untrained.

    Returns:
        The content of `evaluation.json`.

    Raises:
        ConfigError: no bundle is given, one cannot feed a head, or one needs the class of each
            image and they are not known or not numbered as in its training.
        ArtifactError: a bundle is damaged.
        DataError: the test split cannot be used.
        StorageError: `out` cannot be written.
    """
    if not bundles:
        raise ConfigError("evaluate needs a bundle: give at least one, as `gan-ray export` makes.")
    loaded = [load_bundle(path) for path in bundles]
    views = [_view(data or loaded[0].experiment.data, bundle) for bundle in loaded]
    for bundle, view in zip(loaded, views, strict=True):
        _refuse_other_classes(bundle, view)
    tests = {view: load_test(view) for view in dict.fromkeys(views)}
    models = [
        _Contestant(
            name=name,
            version=bundle.manifest.version,
            architecture=bundle.manifest.architecture,
            score=head_name(bundle.score, bundle.detector),
            judge=Scorer.from_bundle(
                bundle, device=device, heads=make_heads(heads, bundle.score, bundle.detector)
            ),
            test=tests[view],
            calibration=bundle.calibration,
            strata=_strata(bundle, view),
        )
        for bundle, name, view in zip(loaded, _names(loaded), views, strict=True)
    ]
    controls: list[_Contestant] = []
    if baselines:
        known = {view: load_training(view) for view in tests}
        fitted = fit_baselines(known[views[0]].normal.images)
        controls = [
            _Contestant(each.name, "", "baseline", each.title, each, models[0].test)
            for each in fitted
        ] + [
            dataclasses.replace(
                model,
                name=f"untrained {model.name}",
                judge=untrained(bundle, known[view].select, device=device),
                calibration=None,
            )
            for model, bundle, view in zip(models, loaded, views, strict=True)
        ]
    return _compare(models, controls, views[0].source, Path(out), resamples)


def _compare(
    models: list[_Contestant],
    controls: list[_Contestant],
    source: str,
    out: Path,
    resamples: int,
) -> dict[str, Any]:
    test = models[0].test
    for other in models[1:]:
        if not np.array_equal(other.test.split.ids, test.split.ids):
            raise DataError(
                f"{models[0].name} and {other.name} were given different test images: evaluate "
                "them on one data set (--data.root)."
            )
    arrays: dict[str, np.ndarray] = {}
    judged, scores = [], []
    contestants = [*models, *controls]
    for index, contestant in enumerate(contestants):
        figures, values = _judge(contestant, resamples)
        if index < len(models):
            figures["cases"], pictures = _cases(contestant, values)
            arrays |= {f"{kind}_{index}": array for kind, array in pictures.items()}
        judged.append(figures)
        scores.append(values)
    ids, groups = test.split.ids.tolist(), test.split.groups.tolist()
    evaluation = {
        "schema": SCHEMA,
        "data": {
            "fingerprint": fingerprint({"ids": ids, "labels": test.labels.tolist()}),
            "images": len(ids),
            "abnormal": int(test.labels.sum()),
            "groups": len(set(groups)),
            "source": source,
        },
        "models": judged[: len(models)],
        "baselines": judged[len(models) :],
        "paired": compare(
            [(each.label, values) for each, values in zip(contestants, scores, strict=True)],
            len(models),
            test.labels,
            test.split.groups,
            resamples,
        ),
    }
    _write(out, evaluation, arrays)
    return evaluation


def _judge(contestant: _Contestant, resamples: int) -> tuple[dict[str, Any], np.ndarray]:
    test, calibration = contestant.test, contestant.calibration
    labels, groups = test.labels, test.split.groups
    began = time.perf_counter()
    result = contestant.judge.score_images(
        test.split.images, classes=test.split.classes, maps=test.masks is not None
    )
    seconds = time.perf_counter() - began
    scores = result.scores
    judged: list[tuple[Sequence[Metric | Curve], np.ndarray]] = [((*RANKING, *CURVES), scores)]
    if calibration is not None:
        called = calibration.abnormal(scores, contestant.strata)
        p_values = calibration.p_values(scores, contestant.strata)
        judged.append((DECISIONS, called))
        judged.append((RELIABILITY, 1 - p_values))
    metrics, bands = intervals_and_bands(judged, labels, groups, resamples)
    if test.masks is not None and result.maps is not None:
        metrics |= pixel_figures(test.masks, result.maps, labels, groups, resamples)
    false_alarms, hits, _ = roc_curve(labels, scores)
    return {
        "name": contestant.name,
        "version": contestant.version,
        "architecture": contestant.architecture,
        "score": contestant.score,
        "metrics": {name: dataclasses.asdict(value) for name, value in metrics.items()},
        "heads": judge_heads((contestant.score, scores), result.heads, test, resamples),
        "by_sublabel": _by_sublabel(test, scores, resamples),
        "by_group": _by_group(test, scores, resamples, calibration),
        "threshold": None
        if calibration is None
        else {
            "value": calibration.threshold,
            "fpr": calibration.fpr,
            "images": calibration.images,
            "id": calibration.id,
            "strata": realised(calibration, contestant.strata, labels, called),
        },
        "roc": {"fpr": false_alarms.tolist(), "tpr": hits.tolist()},
        "bands": {name: band.rounded() for name, band in bands.items()},
        "scores": {
            "ids": pseudonyms(test.split.ids),
            "labels": labels.tolist(),
            "sublabels": test.sublabels.tolist(),
            "groups": pseudonyms(groups),
            "values": scores.tolist(),
            "p_values": None if calibration is None else p_values.tolist(),
            "abnormal": None if calibration is None else called.tolist(),
        },
        "cases": [],
        "map_range": None
        if calibration is None or calibration.map_range is None
        else list(calibration.map_range),
        "images_per_second": len(scores) / seconds,
    }, scores


def _by_sublabel(test: TestData, scores: np.ndarray, resamples: int) -> dict[str, Any]:
    """AUROC of each kind of abnormal images against all normal ones."""
    kinds = np.unique(test.sublabels[test.labels == 1]).tolist()
    figures = {}
    for kind in kinds:
        rows = (test.labels == 0) | ((test.labels == 1) & (test.sublabels == kind))
        value = interval(auroc, test.labels[rows], scores[rows], test.split.groups[rows], resamples)
        images = int(test.labels[rows].sum())
        figures[kind] = {"images": images, auroc.name: dataclasses.asdict(value)}
    return figures


def _by_group(
    test: TestData, scores: np.ndarray, resamples: int, calibration: Calibration | None
) -> dict[str, Any] | None:
    """AUROC and AP of subjects, where some have several images and enough are of each class.

    With a threshold for subjects, also its decisions. An interval over one normal subject would
    tell how the others lie around it, and nothing of the next one.
    """
    if not repeat(test.split.groups):
        return None
    labels, means = by_subject(test.labels, scores, test.split.groups)
    if min(np.count_nonzero(labels), np.count_nonzero(labels == 0)) < FEWEST_SUBJECTS:
        return None
    judged: list[tuple[Sequence[Metric], np.ndarray]] = [((auroc, average_precision), means)]
    if calibration is not None and calibration.subjects is not None:
        judged.append((DECISIONS, calibration.subjects.abnormal(means)))
    figures = intervals(judged, labels, None, resamples)
    counts = {"groups": len(labels), "abnormal": int(labels.sum())}
    return counts | {name: dataclasses.asdict(value) for name, value in figures.items()}


def _cases(
    contestant: _Contestant, scores: np.ndarray
) -> tuple[list[dict[str, Any]], Mapping[str, np.ndarray]]:
    """Choose up to eight images of each outcome, the most extreme ones, failures first."""
    if contestant.calibration is None:
        return [], {}
    test = contestant.test
    called = contestant.calibration.abnormal(scores, contestant.strata)
    abnormal = test.labels == 1
    lowest = np.argsort(scores, kind="stable")
    cases: list[dict[str, Any]] = []
    chosen: list[int] = []
    for outcome, members, order in (
        ("miss", abnormal & ~called, lowest),
        ("false_alarm", ~abnormal & called, lowest[::-1]),
        ("hit", abnormal & called, lowest[::-1]),
        ("correct_pass", ~abnormal & ~called, lowest),
    ):
        for index in order[members[order]][:CASES].tolist():
            cases.append(
                {
                    "outcome": outcome,
                    "id": pseudonym(str(test.split.ids[index])),
                    "sublabel": str(test.sublabels[index]),
                    "score": float(scores[index]),
                    "row": len(cases),
                }
            )
            chosen.append(index)
    images = test.split.images[chosen]
    result = contestant.judge.score_images(
        images, classes=test.split.classes[chosen], maps=True, reconstructions=True
    )
    bytes_ = images if images.dtype == np.uint8 else (images / 257).round().astype(np.uint8)
    pictures = {"images": _picture(bytes_)}
    if result.reconstructions is not None:
        levels = (result.reconstructions.clip(-1, 1) + 1) * 127.5
        pictures["reconstructions"] = _picture(levels.round().astype(np.uint8))
    if result.maps is not None:
        pictures["maps"] = result.maps.astype(np.float16)
    return cases, pictures


def _picture(images: np.ndarray) -> np.ndarray:
    """From [K, C, S, S] to [K, S, S], or [K, S, S, 3] for colour."""
    return images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)


def _view(data: DataConfig, bundle: Bundle) -> DataConfig:
    """The same images as the bundle's networks see them; classes only where they ask for them."""
    own = bundle.experiment.data
    classes, count = own.classes, own.class_count
    if not bundle.detector.conditional:
        classes, count = "one", 1
    return dataclasses.replace(
        data,
        image_size=own.image_size,
        channels=own.channels,
        fit=own.fit,
        classes=classes,
        class_count=count,
    )


def _strata(bundle: Bundle, view: DataConfig) -> np.ndarray | None:
    by = bundle.calibration.by if bundle.calibration else ""
    return strata_of_test(view, by) if by else None


def _refuse_other_classes(bundle: Bundle, view: DataConfig) -> None:
    if view.classes == "one":
        return
    found, trained_on = load_training(view).fingerprint, bundle.manifest.data_fingerprint
    if found != trained_on:
        raise ConfigError(
            f"{bundle.manifest.reference} scores an image by its class, and the classes of these "
            f"data may be others than those it was trained on (fingerprint {found}, trained on "
            f"{trained_on}). Give --data.root and --data.manifest of its training, or train with "
            "--model.label-policy min or predict, which need no class."
        )


def _names(bundles: Sequence[Bundle]) -> list[str]:
    """Names that, with the versions, tell the bundles apart, by their folders where needed."""
    known = [bundle.manifest.reference for bundle in bundles]
    return [
        name if known.count(bundle.manifest.reference) == 1 else f"{name} ({bundle.path.name})"
        for bundle in bundles
        for name in [bundle.manifest.name]
    ]


def _write(out: Path, evaluation: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    text = json.dumps(evaluation, allow_nan=False)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "cases.npz").write_bytes(packed.getvalue())
        (out / "evaluation.json").write_text(text + "\n")
    except OSError as error:
        raise StorageError(f"cannot write the evaluation into {out}: {error}") from None
