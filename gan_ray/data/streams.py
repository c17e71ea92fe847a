"""Endless streams of training images: which row comes when is a pure function.

Position p of a stream is row permutation(p // N)[p % N] of its N images, where each epoch's
permutation is drawn from (seed, stage, stream, epoch). The global batch after `images` images takes
the positions from `images` on, and a rank takes its slice of them: N ranks together see what one
rank would see, and a resumed training goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from gan_ray.data.sets import Split, TrainingData
from gan_ray.data.transforms import mirror, to_unit
from gan_ray.errors import ConfigError
from gan_ray.seeds import derive_seed


class Streams:
    """Rows of the global batch by (seed, stage, images), as floats on the device."""

    def __init__(
        self,
        data: TrainingData,
        names: tuple[str, ...],
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        flip: bool = False,
    ) -> None:
        """Take the streams called `names`; `flip` mirrors each image with probability 1/2.

        Raises:
            ConfigError: a stream is wanted that the data does not offer.
        """
        offered = {"normal": data.normal, "class": data.normal, "unlabeled": data.unlabeled}
        streams = {name: split for name, split in offered.items() if split is not None}
        check_streams(names, tuple(streams))
        self._streams: dict[str, Split] = {name: streams[name] for name in names}
        self._seed, self._device, self._dtype, self._flip = seed, device, dtype, flip
        # Two epochs of each stream can meet in one batch.
        self._epoch = lru_cache(maxsize=2 * len(names) + 2)(self._draw_epoch)

    def batch(
        self, *, stage: str, images: int, size: int, rank: int, world: int
    ) -> dict[str, Tensor]:
        """Give this rank's rows of the global batch of `size` that follows `images` images.

        Each stream gives [size // world, C, S, S] in [-1, 1], but for `class`: the classes of the
        rows of `normal`, int64 [size // world]. Pure: nothing is remembered.

        Raises:
            ConfigError: `size` cannot be split evenly over the ranks.
        """
        if size % world:
            raise ConfigError(
                f"a global batch of {size} images cannot be split over {world} workers. Choose a "
                f"--train.batch-size that {world} divides."
            )
        share = size // world
        positions = images + rank * share + np.arange(share)
        return {
            name: self._classes(stage, positions)
            if name == "class"
            else self._images(name, stage, positions)
            for name in self._streams
        }

    def _images(self, name: str, stage: str, positions: np.ndarray) -> Tensor:
        rows, flips = self._rows(name, stage, positions)
        unit = to_unit(self._streams[name].images[rows], self._device, self._dtype)
        return mirror(unit, torch.from_numpy(flips).to(self._device)) if self._flip else unit

    def _classes(self, stage: str, positions: np.ndarray) -> Tensor:
        rows, _ = self._rows("normal", stage, positions)
        return torch.from_numpy(self._streams["class"].classes[rows]).to(self._device)

    def _rows(self, name: str, stage: str, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        epochs, offsets = np.divmod(positions, len(self._streams[name]))
        rows, flips = np.empty_like(positions), np.empty(len(positions), dtype=bool)
        for epoch in np.unique(epochs):
            order, mirrored = self._epoch(stage, name, int(epoch))
            here = epochs == epoch
            rows[here], flips[here] = order[offsets[here]], mirrored[offsets[here]]
        return rows, flips

    def _draw_epoch(self, stage: str, name: str, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(derive_seed(self._seed, "rows", stage, name, epoch))
        size = len(self._streams[name])
        return random.permutation(size), random.random(size) < 0.5


def check_streams(wanted: Sequence[str], offered: Sequence[str]) -> None:
    """Refuse an architecture that trains on more than the data offer.

    Raises:
        ConfigError: a stream is wanted that the data does not offer.
    """
    missing = [name for name in wanted if name not in offered]
    if missing:
        raise ConfigError(
            f"the architecture needs the streams {', '.join(wanted)}, but the data offers "
            f"{', '.join(offered)}: {', '.join(missing)} is missing. Add images to "
            f"{', '.join(f'train/{name}' for name in missing)}, or choose an architecture that "
            f"trains on {', '.join(offered)} (see `gan-ray architectures`)."
        )
