"""What held-out normals (and the unlabeled mix) say about a detector while it trains.

No test image and no test label is opened here.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from gan_ray import architectures
from gan_ray.config import Experiment
from gan_ray.data.pseudo import pseudo_anomalies
from gan_ray.data.sources import Split, TrainingData
from gan_ray.data.transforms import to_unit
from gan_ray.detector import Batch, Detector
from gan_ray.errors import ConfigError
from gan_ray.experiment import image_spec
from gan_ray.names import pseudonyms
from gan_ray.scoring.features import FeatureNetwork
from gan_ray.scoring.scales import fit_scales
from gan_ray.scoring.scorer import Result, Scorer
from gan_ray.scoring.scores import make_score
from gan_ray.scoring.selection import Selection, figures, select
from gan_ray.seeds import derive_seed

_CHUNK = 64
_NEEDS = {"aucp": "an unlabeled mix (train/unlabeled)",
          "fid": "an unlabeled mix (train/unlabeled)",
          "validation": "labelled validation images (val/normal and val/abnormal)"}  # fmt: skip


def check_selection(
    experiment: Experiment[Any], *, unlabeled: bool, labelled: bool
) -> FeatureNetwork | None:
    """Refuse a way to select that cannot work; give the feature network if there is one.

    Raises:
        ArtifactError: the bundle of the feature network cannot be used.
        ConfigError: the data have no unlabeled mix or no labelled validation images, or FID lacks
            its network, or images to compare.
    """
    by, features = experiment.train.select, experiment.train.features
    if not {"aucp": unlabeled, "fid": unlabeled, "validation": labelled}.get(by, True):
        raise ConfigError(
            f"--train.select {by} needs {_NEEDS[by]}, and the data have none. Offer them, or "
            "select by pseudo, normal_score or last."
        )
    if not features:
        if by == "fid":
            raise ConfigError(
                "--train.select fid needs a feature network: name a bundle whose system has "
                "features, such as f-anogan (--train.features), or select by aucp."
            )
        return None
    if not unlabeled or "reconstruction" not in architectures.get(experiment.architecture).offers:
        raise ConfigError(
            "--train.features is for FID, which compares what the system makes of an unlabeled mix "
            f"(train/unlabeled) with normal images: {experiment.architecture} on these data lacks "
            "the mix, or reconstructs no image. Leave it out."
        )
    return FeatureNetwork(features, image_spec(experiment))


@dataclass(frozen=True)
class Look:
    """One look at the held-out images."""

    figures: Mapping[str, float]
    scores: Mapping[str, tuple[Split, np.ndarray]]
    samples: Mapping[str, np.ndarray]
    """Rows of a picture: `input`, `reconstruction` [N, C, S, S] in [-1, 1], `map` [N, S, S]."""
    map_range: tuple[float, float]
    """Colour scale of the maps, the same at all reports."""

    def table(self) -> bytes:
        """Give the scores as a Parquet file: columns `split`, `id` (pseudonym), `score`."""
        parts = [
            pa.table({"split": [name] * len(scores), "id": pseudonyms(split.ids), "score": scores})
            for name, (split, scores) in self.scores.items()
        ]
        sink = io.BytesIO()
        pq.write_table(pa.concat_tables(parts), sink)
        return sink.getvalue()


def part_to_look_at(data: TrainingData, count: int) -> TrainingData:
    """Keep at most `count` held-out images of each part and label; 0 keeps all.

    Which ones depends on how many there are and on nothing else, so that reports and runs can be
    compared.
    """
    if count == 0:
        return data

    def some(name: str, among: np.ndarray) -> np.ndarray:
        draw = np.random.default_rng(derive_seed("look", name))
        return np.sort(draw.choice(among, min(count, len(among)), replace=False))

    def part(name: str, split: Split) -> Split:
        return split.take(some(name, np.arange(len(split))))

    labelled = None
    if data.labelled is not None:
        split, labels = data.labelled
        kinds = (np.flatnonzero(labels == label) for label in (0, 1))
        rows = np.concatenate([some(f"labelled/{n}", kind) for n, kind in enumerate(kinds)])
        labelled = split.take(rows), labels[rows]
    return dataclasses.replace(
        data,
        select=part("select", data.select),
        unlabeled=data.mix and part("unlabeled", data.mix),
        held_out_mix=None,
        labelled=labelled,
    )


class Validation:
    """The held-out images of an experiment and the way it selects."""

    def __init__(self, experiment: Experiment[Any], data: TrainingData) -> None:
        """Check that selection has what it needs; see `check_selection`, also for errors.

        Pseudo-anomalies are made, and looked at, only where they select.
        """
        self._experiment, self._data = experiment, part_to_look_at(data, experiment.train.look)
        self._network = check_selection(
            experiment, unlabeled=data.unlabeled is not None, labelled=data.labelled is not None
        )
        self._of_normals: np.ndarray | None = None
        by_pseudo = experiment.train.select == "pseudo"
        self._pseudo = pseudo_anomalies(self._data.select) if by_pseudo else None

    @property
    def images(self) -> int:
        """Images of a look."""
        data = self._data
        labelled = data.labelled[0] if data.labelled else ()
        parts = (data.select, data.mix or (), labelled, self._pseudo or ())
        return sum(map(len, parts))

    def look(self, detector: Detector, device: torch.device) -> Look:
        """Score the held-out normals, the unlabeled mix and the labelled validation images.

        Where a part of the mix is held out of training, the mix is that part.
        """
        experiment, data = self._experiment, self._data
        score = fit_scales(experiment.score, detector, data.select, device=device)
        scorer = Scorer(
            detector, make_score(score, detector), fit=experiment.data.fit, device=device
        )
        splits = {"select": data.select}
        if data.mix is not None:
            splits["unlabeled"] = data.mix
        if data.labelled is not None:
            splits["labelled"] = data.labelled[0]
        if self._pseudo is not None:
            splits["pseudo"] = self._pseudo
        results = {
            name: scorer.score_images(
                split.images,
                classes=split.classes,
                reconstructions=self._network is not None and name == "unlabeled",
            )
            for name, split in splits.items()
        }
        scores = {name: result.scores for name, result in results.items()}
        labelled = data.labelled and (data.labelled[1], scores["labelled"])
        translated = self._features(results["unlabeled"], device) if self._network else None
        seen = figures(
            scores["select"],
            scores.get("unlabeled"),
            labelled,
            translated,
            scores.get("pseudo"),
        )
        return Look(
            figures=seen | self._own_figures(detector, device),
            scores={name: (split, scores[name]) for name, split in splits.items()},
            samples=self._samples(scorer),
            # A scaled map has a mean of 1 + pixel_weight on normals; others are in pixel values.
            map_range=(0.0, 4 * (1 + score.pixel_weight) if score.scales else 0.5),
        )

    def _features(self, mix: Result, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
        """Give the features of the translated mix and those, computed once, of held-out normals."""
        assert self._network is not None
        assert mix.reconstructions is not None
        if self._of_normals is None:
            normals = to_unit(self._data.select.images, "cpu").numpy()
            self._of_normals = self._network(normals, device)
        return self._network(mix.reconstructions, device), self._of_normals

    def _own_figures(self, detector: Detector, device: torch.device) -> dict[str, float]:
        """Give what the detector itself measures on the held-out normals, always on equal draws."""
        images, classes = self._data.select.images, self._data.select.classes
        dtype = next(detector.parameters()).dtype
        sums: dict[str, float] = {}
        for start in range(0, len(images), _CHUNK):
            rows = to_unit(images[start : start + _CHUNK], device, dtype)
            kinds = torch.from_numpy(classes[start : start + _CHUNK]).to(device)
            seed = derive_seed(self._experiment.seed, "held-out", start)
            with torch.no_grad():
                own = detector.held_out(Batch({"normal": rows, "class": kinds}, seed=seed))
            for name, values in own.items():
                sums[f"val/{name}"] = sums.get(f"val/{name}", 0.0) + float(values.sum())
        return {name: value / len(images) for name, value in sums.items()}

    def _samples(self, scorer: Scorer) -> dict[str, np.ndarray]:
        count = self._experiment.train.samples
        if count == 0:
            return {}
        shown = [(self._data.select, (count + 1) // 2)]
        if self._data.mix is not None:
            shown.append((self._data.mix, count // 2))
        images = np.concatenate([split.images[:rows] for split, rows in shown])
        classes = np.concatenate([split.classes[:rows] for split, rows in shown])
        result = scorer.score_images(images, classes=classes, maps=True, reconstructions=True)
        top = np.iinfo(images.dtype).max
        samples = {"input": images.astype(np.float32) / top * 2 - 1}
        if result.reconstructions is not None:
            samples["reconstruction"] = result.reconstructions
        if result.maps is not None:
            samples["map"] = result.maps
        return samples

    def best(self, rows: Sequence[Mapping[str, Any]]) -> Selection | None:
        """Give the report that the experiment's selection prefers, the earliest of equals.

        None while no report has the figure it goes by.
        """
        by = self._experiment.train.select
        try:
            return select(rows, "" if by == "auto" else by)
        except ConfigError:  # no stage so far could score
            return None
