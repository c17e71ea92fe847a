"""The graphs beside a bundle's weights: how each file is written and how it is replayed.

`model.pt2` is for `torch.export.load`, `model.onnx` for ONNX Runtime and whatever else reads ONNX.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch.export import ExportedProgram

from gan_ray.artifacts.graph import inputs, trace
from gan_ray.detector import Detector
from gan_ray.errors import ArtifactError, ConfigError
from gan_ray.scoring.scores import Score

_CHUNK = 64

Run = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""From what a graph takes (`graph.inputs`) to scores, float32 [B]."""


@dataclass(frozen=True)
class Format:
    """A kind of graph."""

    file: str
    """Its name in a bundle."""
    write: Callable[[ExportedProgram], bytes]
    load: Callable[[bytes], Run]
    writer: tuple[str, ...] = ()
    """Packages that writing takes."""
    reader: tuple[str, ...] = ()
    """Packages that replaying takes."""
    runs_code: bool = False
    """Whether a file that somebody else made can run code when it is loaded."""


def _write_pt2(program: ExportedProgram) -> bytes:
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def _load_pt2(data: bytes) -> Run:
    module = torch.export.load(io.BytesIO(data)).module()

    def run(rows: Mapping[str, np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            found = module(**{name: torch.from_numpy(values) for name, values in rows.items()})
        scores: np.ndarray = found["score"].numpy()
        return scores

    return run


def _write_onnx(program: ExportedProgram) -> bytes:
    outputs = list(program.call_spec.out_spec.context)
    batch = {name: {0: "batch"} for name in program.graph_signature.user_inputs}
    made = torch.onnx.export(program, output_names=outputs, dynamic_shapes=batch, verbose=False)
    assert made is not None
    data: bytes = made.model_proto.SerializeToString()
    return data


def _load_onnx(data: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(data, options, providers=providers)

    def run(rows: Mapping[str, np.ndarray]) -> np.ndarray:
        scores: np.ndarray = session.run(["score"], dict(rows))[0]
        return scores

    return run


FORMATS: Mapping[str, Format] = {
    "pt2": Format("model.pt2", _write_pt2, _load_pt2, runs_code=True),
    "onnx": Format(
        "model.onnx",
        _write_onnx,
        _load_onnx,
        writer=("onnx", "onnxscript"),
        reader=("onnxruntime",),
    ),
}
"""By their names on the command line."""


def missing(packages: tuple[str, ...]) -> str:
    """Say which of these packages are not installed and how to get them; empty when all are."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    there = "which is not installed" if len(absent) == 1 else "which are not installed"
    needs = f"needs {', '.join(absent)}, {there}: pip install 'gan-ray[onnx]'"
    return needs if absent else ""


def refuse_without_packages(format_: Format) -> None:
    """Refuse to write and replay a graph without the packages that it takes.

    Raises:
        ConfigError: one is missing.
    """
    if needs := missing((*format_.writer, *format_.reader)):
        raise ConfigError(f"{format_.file} {needs}, or leave it out of --format")


def write_graphs(detector: Detector, score: Score, formats: Iterable[str]) -> dict[str, bytes]:
    """Give the files of the named formats, one graph for all of them.

    Raises:
        ArtifactError: torch cannot trace the detector, or not express it in a format.
        ConfigError: the detector searches.
    """
    wanted = [FORMATS[name] for name in formats]
    if not wanted:
        return {}
    with _told(f"{detector.name} cannot be traced as a graph", "export safetensors alone"):
        program = trace(detector, score)
    files = {}
    for format_ in wanted:
        what = f"{detector.name} cannot be written as {format_.file}"
        with _told(what, "leave it out of --format"):
            files[format_.file] = format_.write(program)
    return files


class GraphScorer:
    """Scores images with a graph as `Scorer` does with a bundle."""

    def __init__(self, format_: Format, data: bytes, *, conditional: bool) -> None:
        """Load a graph. One whose format `runs_code` must be of somebody who is trusted.

        Raises:
            ArtifactError: it is none.
        """
        with _told(f"{format_.file} cannot be loaded", "export the bundle again"):
            self._run = format_.load(data)
        self._file, self._conditional = format_.file, conditional

    def __call__(self, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Give scores, float32 [N], of images uint8 or uint16 [N, C, S, S].

        Raises:
            ArtifactError: the graph does not take them.
        """
        parts = []
        for start in range(0, len(images), _CHUNK):
            rows = slice(start, start + _CHUNK)
            with _told(f"{self._file} gives no scores", "export the bundle again"):
                parts.append(self._run(inputs(images[rows], classes[rows], self._conditional)))
        return np.concatenate(parts)


@contextmanager
def _told(what: str, remedy: str) -> Iterator[None]:
    """Make one error of the many that exporters and runtimes raise, and keep them quiet."""
    log = logging.getLogger("torch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except ConfigError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"{what} with torch {torch.__version__} ({reason}): {remedy}") from None
    finally:
        log.setLevel(level)
