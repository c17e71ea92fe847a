"""What a data set is once its images are prepared."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Split:
    """Images of one part of a data set, in the order of their rows."""

    images: np.ndarray
    """[N, C, S, S], uint8 or uint16; in memory, or mapped from a file when large."""
    groups: np.ndarray
    """[N] strings: digest of the patient (or file) an image belongs to; never written as it is."""
    ids: np.ndarray
    """[N] strings: digest of an image's file; never written as it is."""
    classes: np.ndarray
    """[N] int64: the kind of normal image that each is or would be, numbered as those of the
    training normals; 0 where all are of one kind, -1 where the kind is not known. Known apart from
    whether an image is normal."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def take(self, rows: np.ndarray) -> Split:
        """Give the split of some rows (indices), in memory."""
        return Split(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True)
class TrainingData:
    """All that training, selection and calibration may see. All parts have one dtype."""

    normal: Split
    """Normal images to train on."""
    unlabeled: Split | None
    """A mix of normal and abnormal images to train on without labels, where the source has one."""
    select: Split
    """Held-out normals that choose checkpoints and settings."""
    calibrate: Split
    """Held-out normals that set the threshold; they share no group with `select`."""
    labelled: tuple[Split, np.ndarray] | None
    """`select` and the abnormal images of a validation folder, with labels 0 and 1."""
    fingerprint: str
    """Names the content: equal for equal images, groups and image settings, wherever they lie."""
    held_out_mix: Split | None = None
    """Images of the mix that are not trained on (`data.mix_held_out`); they share no group with
    `unlabeled`. None where all are."""

    @property
    def mix(self) -> Split | None:
        """The unlabeled images that selection looks at: those held out of training, or else all."""
        return self.unlabeled if self.held_out_mix is None else self.held_out_mix


@dataclass(frozen=True)
class TestData:
    """The test split with its labels."""

    __test__ = False  # not a test class, whatever pytest makes of the name

    split: Split
    labels: np.ndarray
    """[N] int64: 0 normal, 1 abnormal."""
    sublabels: np.ndarray
    """[N] strings: "normal", or the kind of abnormality."""
    masks: np.ndarray | None
    """[N, S0, S0] uint8, 1 where abnormal, zeros for normals; S0 is the stored size when all masks
    are squares of one size, and the image size otherwise."""
