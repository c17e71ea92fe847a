"""What a path in a data set's folder means: its part, its kind of abnormality, or its mask.

    train/normal  train/unlabeled  val/normal  val/abnormal  test/normal  test/abnormal  test/masks

are our names. MVTec AD's `good`, `test/<defect>` and `ground_truth/<defect>/<stem>_mask.png`,
BMAD's `valid`, `Ungood`, `img` and `label`, Brainomaly's `neg`, `neg_mixed` and `pos` (in training,
the last two are its mix), and MedIAnomaly's `test/annotation` with `seg` in place of `flair` and
training normals straight below `train` mean the same things.
"""

from __future__ import annotations

from dataclasses import dataclass

from gan_ray.data.suffixes import stem

SPLIT_FOLDERS = frozenset({"train", "val", "valid", "test", "ground_truth"})

ALLOWED = (
    "train/normal (or good), train/unlabeled, val/normal, val/abnormal, test/normal (or good), "
    "test/abnormal (or one folder per defect), test/masks (or ground_truth/<defect>)"
)


@dataclass(frozen=True)
class Place:
    """The meaning of one path."""

    part: str
    """train/normal, train/unlabeled, val/normal, val/abnormal, test, masks, aside, misplaced, or
    train: straight below it, normal where train holds no folders."""
    sublabel: str = ""
    """In val and test: `normal`, or the kind of abnormality."""
    key: str = ""
    """What an abnormal test image and its mask have in common: folder and stem."""


_NORMAL = ("normal", "good", "neg")
_ABNORMAL = ("abnormal", "ungood", "pos")
_UNLABELED = ("unlabeled", "neg_mixed", "pos")


def place(path: str) -> Place:
    """Say what a path below the root means; paths outside of the known folders lie `aside`."""
    split, *below = path.split("/")
    split = {"valid": "val"}.get(split.lower(), split.lower())
    if split not in SPLIT_FOLDERS:
        return Place("aside")
    if len(below) < 2:
        return Place("train" if split == "train" else "misplaced")
    kind, *rest = below
    name = kind.lower()
    if split == "ground_truth":
        return Place("masks", key=_key(kind, rest))
    if split == "train":
        if name in _NORMAL:
            return Place("train/normal")
        return Place("train/unlabeled" if name in _UNLABELED else "misplaced")
    if split == "test" and name == "annotation":
        return Place("masks", key=_key("", rest).replace("seg", "flair"))
    if name == "masks" or (rest[0].lower() == "label" and len(rest) > 1):
        # Masks of normals and of validation images say nothing that is asked for.
        useful = split == "test" and name not in _NORMAL
        folder = "" if name == "masks" else kind
        return Place("masks" if useful else "aside", key=_key(folder, rest))
    if name in _NORMAL:
        return Place("test" if split == "test" else "val/normal", "normal")
    sublabel = "abnormal" if name in _ABNORMAL else kind
    return Place("test" if split == "test" else "val/abnormal", sublabel, _key(kind, rest))


def _key(folder: str, rest: list[str]) -> str:
    inner = rest[1:] if len(rest) > 1 and rest[0].lower() in ("img", "label") else rest
    path = "/".join([folder, *inner] if folder else inner)
    return stem(path).removesuffix("_mask")
