"""The whole vocabulary of failure: every error a user can meet, with its exit code.

A message carries four facts, in this order: what is wrong, where, what is allowed, what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class GanRayError(Exception):
    """Base of all errors that are reported to a user without a traceback."""

    exit_code: int = 1


class CheckFailed(GanRayError):
    """A check that the user asked for did not hold (exit 1)."""


class ConfigError(GanRayError, ValueError):
    """A setting that cannot work; raised before any device is asked for (exit 2)."""

    exit_code = 2


class ArtifactError(GanRayError):
    """A bundle or checkpoint that is damaged, unknown or fails its parity gate (exit 3)."""

    exit_code = 3


class DataError(GanRayError, ValueError):
    """Data that cannot be used: names the file, the reason and the remedy (exit 4)."""

    exit_code = 4


class StorageError(GanRayError):
    """A place that cannot be read or written, or is not allowed (exit 5)."""

    exit_code = 5


class ClusterError(GanRayError):
    """A Ray cluster that cannot do what was asked (exit 5)."""

    exit_code = 5


class OutOfMemoryError(GanRayError):
    """Memory of a device or a node ran out: names who, where, how much and what fits (exit 5)."""

    exit_code = 5


class DivergedError(GanRayError):
    """A loss term stopped being finite: names stage, step, term and images seen (exit 1)."""

    def __init__(self, *, stage: str, step: str, term: str, images: int, value: float) -> None:
        """Remember where training broke; `images` counts images of the stage."""
        self.stage, self.step, self.term, self.images = stage, step, term, images
        super().__init__(
            f"training diverged: term '{term}' of step '{step}' in stage '{stage}' is {value} "
            f"after {images} images. The last checkpoint before it is intact: lower the learning "
            "rate or the weight of that term, or clip gradients (--train.clip-gradient)."
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip between Ray processes (keyword-only arguments do not by default)."""
        return (_rebuild_diverged, (self.stage, self.step, self.term, self.images, str(self)))


def _rebuild_diverged(stage: str, step: str, term: str, images: int, text: str) -> DivergedError:
    error = DivergedError(stage=stage, step=step, term=term, images=images, value=float("nan"))
    error.args = (text,)
    return error


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that `name` is not a known `kind`, list the known ones and the nearest.

    Returns the sentence; the caller chooses the error class.
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"unknown {kind} '{name}': known are {', '.join(names) or 'none'}.{hint}"


def needs_classes(architecture: str, reason: str) -> str:
    """Say that a conditional detector cannot score for a `reason`, and what to do about it.

    Returns the sentence; the caller chooses the error class.
    """
    return (
        f"{architecture} scores an image by its class, but {reason}. Name the class of every image "
        "in the column class of a manifest (--data.manifest, --data.classes source), or train with "
        "--model.label-policy min or predict, which need no class."
    )
