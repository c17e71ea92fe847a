"""Training data read once per node: one worker prepares it, the others there map its files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np

from gan_ray.data.sets import Split, TrainingData
from gan_ray.errors import GanRayError, StorageError
from gan_ray.training import distributed

_SPLITS = ("normal", "unlabeled", "held_out_mix", "select", "calibrate", "labelled")
_COLUMNS = tuple(field.name for field in fields(Split))


def once_per_node(load: Callable[[], TrainingData]) -> TrainingData:
    """Give what `load` gives, called on the first rank of each node; all ranks call this.

    The images of a node with several ranks lie in temporary files that they all map: one copy in
    memory, whatever the number of ranks. The files vanish with the processes.

    Raises:
        GanRayError: `load` raised it on some rank; it is raised on all of them.
        StorageError: the temporary folder has no room.
    """
    nodes = distributed.gather(_node())
    here = [rank for rank, node in enumerate(nodes) if node == nodes[distributed.rank()]]
    leads, alone = here[0] == distributed.rank(), len(here) == 1
    data: TrainingData | None = None
    told: str | GanRayError = ""
    if leads:
        try:
            data = load()
            told = "" if alone else _put(data)
        except GanRayError as error:
            told = error
    tellings = distributed.gather(told)
    for telling in tellings:
        if isinstance(telling, GanRayError):
            raise telling
    if not alone:
        folder = Path(str(tellings[here[0]]))
        data = _mapped(folder)
    distributed.gather("opened")  # what is mapped stays when its file is gone
    if leads and not alone:
        shutil.rmtree(folder)
    assert data is not None
    return data


def _node() -> tuple[str, int, int]:
    """Give what processes share that see one temporary folder of one running kernel."""
    folder = os.stat(tempfile.gettempdir())
    boot = Path("/proc/sys/kernel/random/boot_id")
    return (boot.read_text() if boot.exists() else "", folder.st_dev, folder.st_ino)


def _put(data: TrainingData) -> str:
    """Write the arrays into a new temporary folder; gives its path."""
    folder = Path(tempfile.mkdtemp(prefix="gan-ray-data-"))
    try:
        for name in _SPLITS:
            part = getattr(data, name)
            if name == "labelled" and part is not None:
                part, labels = part
                np.save(folder / "labels.npy", labels)
            for column in _COLUMNS if part is not None else ():
                np.save(folder / f"{name}.{column}.npy", getattr(part, column))
        (folder / "fingerprint").write_text(data.fingerprint)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise StorageError(
            f"the prepared images cannot be put where the workers of this node share them "
            f"({error.strerror}): make room in {folder.parent}, or set TMPDIR."
        ) from None
    return str(folder)


def _mapped(folder: Path) -> TrainingData:
    def split(name: str) -> Split | None:
        if not (folder / f"{name}.images.npy").exists():
            return None
        # Copy on write: nobody writes, and torch warns of what it may not write to.
        images = np.load(folder / f"{name}.images.npy", mmap_mode="c", allow_pickle=False)
        small = {c: np.load(folder / f"{name}.{c}.npy") for c in _COLUMNS if c != "images"}
        return Split(images=images.view(np.ndarray), **small)

    normal, unlabeled, held_out_mix, select, calibrate, labelled = map(split, _SPLITS)
    assert normal is not None
    assert select is not None
    assert calibrate is not None
    return TrainingData(
        normal=normal,
        unlabeled=unlabeled,
        select=select,
        calibrate=calibrate,
        labelled=None if labelled is None else (labelled, np.load(folder / "labels.npy")),
        fingerprint=(folder / "fingerprint").read_text(),
        held_out_mix=held_out_mix,
    )
