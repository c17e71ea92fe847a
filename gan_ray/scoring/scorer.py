"""The one way from pixels to scores: training's validation, evaluation, buckets and HTTP use it.

The score of an image is a property of that image: networks are in eval mode and every reduction
stays within the image, so batch size, order and neighbours do not matter. What remains is the last
bits of float32: a kernel may sum in another order for another batch size. Measured on a CPU with
chest films at batches of 1 to 48: f-AnoGAN 4e-7 of the score, Brainomaly and GANomaly equal bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gan_ray import heap
from gan_ray.data.readers import read_image
from gan_ray.data.transforms import prepare, to_unit
from gan_ray.detector import Detector, Evidence
from gan_ray.errors import ConfigError, DataError, needs_classes
from gan_ray.scoring.scores import Score, make_score

if TYPE_CHECKING:
    from gan_ray.artifacts.bundle import Bundle


@dataclass(frozen=True)
class Result:
    """Scores of N images, in their order, on the host."""

    scores: np.ndarray
    """float32 [N]; higher is more abnormal."""
    parts: Mapping[str, np.ndarray]
    """float32 [N] each: the components of the score, by name."""
    maps: np.ndarray | None = None
    """float32 [N, S, S], when asked for and the detector reconstructs."""
    reconstructions: np.ndarray | None = None
    """float32 [N, C, S, S] in [-1, 1], when asked for and the detector reconstructs."""
    heads: Mapping[str, Result] = field(default_factory=dict)
    """The same by each of the scorer's heads, without reconstructions."""


@dataclass(frozen=True)
class FileResult:
    """The score of one file, or why it has none."""

    name: str
    score: float | None = None
    map: np.ndarray | None = None
    """float32 [S, S], when asked for and the detector reconstructs."""
    error: str | None = None
    """What is wrong with the file and what to do about it."""


class Scorer:
    """Scores images with a detector; it changes no weight.

    It moves the detector to `device` and puts it into eval mode at every call. It does not set
    train mode again: the training loop sets the mode of each network itself.
    """

    def __init__(
        self,
        detector: Detector,
        score: Score,
        *,
        fit: str = "resize",
        device: torch.device | str = "cpu",
        batch_size: int = 64,
        heads: Mapping[str, Score] | None = None,
    ) -> None:
        """Take a detector and a score that it can feed (see `make_score`).

        `fit` says how a file becomes a square; `batch_size` images go through the networks at once.
        `heads` are further scores of the same evidence, which cost no further pass.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, but is {batch_size}")
        heap.keep_freed_memory()
        self.detector = detector.to(device)
        self.score = score
        self.fit = fit
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.heads = dict(heads or {})

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        *,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
        heads: Mapping[str, Score] | None = None,
    ) -> Scorer:
        """Score exactly as the bundle was exported to, and by other heads besides."""
        score = make_score(bundle.score, bundle.detector)
        fit = bundle.manifest.fit
        return cls(
            bundle.detector, score, fit=fit, device=device, batch_size=batch_size, heads=heads
        )

    def score_images(
        self,
        images: np.ndarray,
        *,
        classes: np.ndarray | None = None,
        maps: bool = False,
        reconstructions: bool = False,
    ) -> Result:
        """Score images, uint8 or uint16 [N, C, S, S] as `data.transforms.prepare` gives them.

        `classes` int64 [N] reach a detector that is `conditional`, and no other. Maps and
        reconstructions leave the device only when asked for.

        Raises:
            ConfigError: the images are not of the detector's size and channels, or it is
                conditional and the class of an image is not known.
        """
        spec = self.detector.image
        if images.ndim != 4 or images.shape[1:] != (spec.channels, spec.size, spec.size):
            raise ConfigError(
                f"images of shape {list(images.shape)} do not suit {self.detector.name}: it was "
                f"built for [N, {spec.channels}, {spec.size}, {spec.size}]; prepare them with its "
                "image size and channels."
            )
        known = self._known(classes, len(images)) if self.detector.conditional else None
        own, *others = (_Gathered(score, maps) for score in (self.score, *self.heads.values()))
        kept_reconstructions: list[np.ndarray] = []
        # no_grad, not inference_mode: a latent search differentiates inside. TF32 has 10 bits only.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with torch.no_grad(), exact:
            for batch, rows in self._batches(images):
                evidence = self.detector.evidence(batch, None if known is None else known[rows])
                for gathered in (own, *others):
                    gathered.add(batch, evidence)
                if reconstructions and evidence.reconstruction is not None:
                    kept_reconstructions.append(_host(evidence.reconstruction))
        return replace(
            own.result(),
            reconstructions=np.concatenate(kept_reconstructions) if kept_reconstructions else None,
            heads={n: other.result() for n, other in zip(self.heads, others, strict=True)},
        )

    def score_files(
        self, items: Sequence[tuple[str, bytes]], *, maps: bool = False
    ) -> list[FileResult]:
        """Score encoded images, given as (name, bytes), in their order.

        Reader and pixels are those of training. A file that cannot be read gives a result with an
        error; it harms no other. At most `batch_size` decoded images are held at a time.

        Raises:
            ConfigError: the detector is conditional; a file does not tell its class.
        """
        results: list[FileResult] = []
        for start in range(0, len(items), self.batch_size):
            results += self._score_chunk(items[start : start + self.batch_size], maps)
        return results

    def _score_chunk(self, items: Sequence[tuple[str, bytes]], maps: bool) -> list[FileResult]:
        results = [FileResult(name) for name, _ in items]
        # 8 and 16 bit images have scales of their own and cannot share an array.
        rows: dict[np.dtype[np.generic], dict[int, np.ndarray]] = {}
        for index, (name, data) in enumerate(items):
            try:
                row = prepare(read_image(data, name), self.detector.image, self.fit)
            except DataError as error:
                results[index] = FileResult(name, error=str(error))
            else:
                rows.setdefault(row.dtype, {})[index] = row
        for same in rows.values():
            result = self.score_images(np.stack(list(same.values())), maps=maps)
            for place, index in enumerate(same):
                map_ = None if result.maps is None else result.maps[place]
                results[index] = FileResult(items[index][0], float(result.scores[place]), map_)
        return results

    def _known(self, classes: np.ndarray | None, images: int) -> Tensor:
        count = self.detector.image.classes
        if classes is None:
            reason = "these images come without one"
            raise ConfigError(needs_classes(self.detector.name, reason))
        unknown = images - int(((classes >= 0) & (classes < count)).sum())
        if unknown:
            reason = f"{unknown} of {images} images have none of the {count} it was trained on"
            raise ConfigError(needs_classes(self.detector.name, reason))
        return torch.from_numpy(classes).to(self.device)

    def _batches(self, images: np.ndarray) -> Iterator[tuple[Tensor, slice]]:
        self.detector.eval()
        dtype = next((p.dtype for p in self.detector.parameters()), torch.float32)
        for start in range(0, len(images), self.batch_size):
            rows = slice(start, start + self.batch_size)
            yield to_unit(images[rows], self.device, dtype), rows


class _Gathered:
    """What one score says of the batches, as they come."""

    def __init__(self, score: Score, maps: bool) -> None:
        self._score, self._wants_maps = score, maps
        self._scores: list[Tensor] = []
        self._parts: dict[str, list[Tensor]] = {}
        self._maps: list[np.ndarray] = []

    def add(self, images: Tensor, evidence: Evidence) -> None:
        scored = self._score(images, evidence)
        self._scores.append(scored.score)
        for name, part in scored.parts.items():
            self._parts.setdefault(name, []).append(part)
        if self._wants_maps and scored.map is not None:
            self._maps.append(_host(scored.map[:, 0]))

    def result(self) -> Result:
        return Result(
            scores=_host(torch.cat(self._scores)) if self._scores else np.empty(0, np.float32),
            parts={name: _host(torch.cat(values)) for name, values in self._parts.items()},
            maps=np.concatenate(self._maps) if self._maps else None,
        )


def _host(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.float().cpu().numpy()
    return array
