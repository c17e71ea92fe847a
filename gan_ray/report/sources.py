"""What a report is made of, read from a local folder or a bucket: runs, evaluations and sweeps.

No image of a data set and no label is opened here; a test label is known only through
evaluation.json, and pixels only through cases.npz and the run's own sample grids.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_ray.errors import ArtifactError, ConfigError
from gan_ray.storage import Store, open_store, split_uri

_SAMPLES = 6


@dataclass(frozen=True)
class Run:
    """One training: its settings and what it reported."""

    name: str
    experiment: Mapping[str, Any]
    environment: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    selection: Mapping[str, Any]
    """selection.json: which report was preferred and by what; empty when none was."""
    threshold: Mapping[str, Any]
    """threshold.json; empty before calibration."""
    samples: Sequence[tuple[str, bytes]]
    """Grids of held-out images and their restorations, as (stem of the file, PNG bytes), oldest
    first, at most six."""
    drawn: Sequence[tuple[str, bytes]]
    """Drawings of fixed codes of the prior, likewise; none for systems without one."""
    walk: Sequence[tuple[str, bytes]]
    """The newest walk through the latent space, likewise."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation.json with the pixels of its cases."""

    name: str
    content: Mapping[str, Any]
    cases: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Search:
    """One sweep.json."""

    name: str
    content: Mapping[str, Any]


Source = Run | Evaluation | Search


def read(path: Path | str) -> list[Source]:
    """Read what `path` holds: a folder, an `s3://` prefix, or one of the json files in it.

    Raises:
        ConfigError: nothing there that a report could show.
        ArtifactError: a file that is damaged or of another schema.
        StorageError: a place that cannot be read.
    """
    uri = str(path)
    folder = split_uri(uri)[0] if uri.endswith(".json") else uri
    store = open_store(folder)
    name = store.uri.rstrip("/").rsplit("/", 1)[-1]
    found: list[Source] = []
    if store.exists("evaluation.json"):
        found.append(_evaluation(store, name))
    if store.exists("experiment.json"):
        found.append(_run(store, name))
    if store.exists("sweep.json"):
        found.append(Search(name, _json(store, "sweep.json")))
    if not found:
        raise ConfigError(
            f"nothing to report in '{uri}': a run folder holds experiment.json, an evaluation "
            "evaluation.json, a sweep sweep.json. Give the --out of one of these verbs."
        )
    return found


def _evaluation(store: Store, name: str) -> Evaluation:
    content = _json(store, "evaluation.json")
    if content.get("schema") != 1:
        raise ArtifactError(
            f"{store.uri}/evaluation.json has schema {content.get('schema')!r}, but this version "
            "reads 1. Run `gan-ray evaluate` again."
        )
    cases: dict[str, NDArray[Any]] = {}
    if store.exists("cases.npz"):
        try:
            with np.load(io.BytesIO(store.get("cases.npz")), allow_pickle=False) as archive:
                cases = {key: archive[key] for key in archive.files}
        except (ValueError, zipfile.BadZipFile, OSError) as error:
            raise ArtifactError(
                f"{store.uri}/cases.npz cannot be read ({error}). Run `gan-ray evaluate` again."
            ) from None
    return Evaluation(name, content, cases)


def _run(store: Store, name: str) -> Run:
    return Run(
        name=name,
        experiment=_json(store, "experiment.json"),
        environment=_json(store, "environment.json", optional=True),
        metrics=_metrics(store),
        selection=_json(store, "selection.json", optional=True),
        threshold=_json(store, "threshold.json", optional=True),
        samples=_grids(store, "samples/", _SAMPLES),
        drawn=_grids(store, "latent/samples/", _SAMPLES),
        walk=_grids(store, "latent/walk/", 1),
    )


def _grids(store: Store, prefix: str, most: int) -> list[tuple[str, bytes]]:
    """Read `most` pictures of a training, spread over it; the last one is among them."""
    keys = [entry.key for entry in store.list(prefix) if entry.key.endswith(".png")]
    spread = np.linspace(len(keys) - 1, 0, min(len(keys), most)).round().astype(int)
    return [(Path(keys[i]).stem, store.get(keys[i])) for i in spread[::-1]]


def _metrics(store: Store) -> list[dict[str, Any]]:
    """Read metrics.jsonl; a last line without its end is still being written and is left out."""
    if not store.exists("metrics.jsonl"):
        return []
    *lines, _ = store.get("metrics.jsonl").decode().split("\n")
    return [_parse(line, f"{store.uri}/metrics.jsonl") for line in lines if line.strip()]


def _json(store: Store, key: str, *, optional: bool = False) -> dict[str, Any]:
    if optional and not store.exists(key):
        return {}
    return _parse(store.get(key).decode(), f"{store.uri}/{key}")


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ArtifactError(
            f"{where} is not JSON ({error}). Restore it or run its verb again."
        ) from None
    if not isinstance(content, dict):
        raise ArtifactError(f"{where} holds no JSON object. Restore it or run its verb again.")
    return content
