"""From what became of a job to what the client reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gan_ray.detector import ImageSpec
from gan_ray.scoring.calibration import calibration_warnings
from serve.card import Card
from serve.failures import Failure
from serve.model import Case, Fault, Reply
from serve.pictures import png8
from serve.schemas import (
    InferRequest,
    InferResponse,
    OutputTensor,
    Scored,
    ScoreResponse,
    Timing,
    Unscored,
)


def raise_fault(fault: Fault) -> None:
    """Fail the request as its only image failed."""
    raise Failure(fault.status, fault.code, fault.error, "send an image that this model can read")


def score_response(
    card: Card,
    request_id: str,
    names: Sequence[str],
    reply: Reply,
    *,
    maps: bool,
    reconstructions: bool,
    stratum: str = "",
) -> ScoreResponse:
    """Give one output per image, in their order; all are of one `stratum`."""
    threshold = card.strata.get(stratum, card.threshold)
    warnings = calibration_warnings(card.manifest.calibration, stratum)

    def scored(name: str, case: Case) -> Scored:
        output = Scored(
            input=name,
            score=case.score,
            p_value=case.p_value,
            label=None if case.abnormal is None else "abnormal" if case.abnormal else "normal",
            threshold=threshold,
            preprocess=card.manifest.preprocessing,
            warnings=warnings,
        )
        if maps and case.map is not None and card.map_range is not None:
            output.map = png8(case.map, *card.map_range)
        if reconstructions:
            output.image = png8(case.image, 0, np.iinfo(case.image.dtype).max)
            if case.reconstruction is not None:
                output.reconstruction = png8(case.reconstruction, -1.0, 1.0)
        return output

    return ScoreResponse(
        model_name=card.name,
        model_version=card.manifest.version,
        id=request_id,
        outputs=[
            Unscored(input=name, error=case.error, code=case.code)
            if isinstance(case, Fault)
            else scored(name, case)
            for name, case in zip(names, reply.cases, strict=True)
        ],
        timing_ms=Timing(**reply.timing_ms),
    )


def infer_response(
    card: Card, request_id: str, wanted: InferRequest, reply: Reply
) -> InferResponse:
    """Give the wanted tensors.

    Raises:
        Failure: the model offers no such output (400) or gave no finite score (500).
    """
    cases: list[Case] = []
    for case in reply.cases:
        if isinstance(case, Fault):
            raise_fault(case)
        else:
            cases.append(case)
    return InferResponse(
        model_name=card.name,
        model_version=card.manifest.version,
        id=wanted.id or request_id,
        outputs=[_tensor(output.name, cases, card.image) for output in wanted.outputs],
    )


def _tensor(name: str, cases: Sequence[Case], image: ImageSpec) -> OutputTensor:
    columns: dict[str, tuple[list[Any], list[int]]] = {
        "score": ([case.score for case in cases], []),
        "p_value": ([case.p_value for case in cases], []),
        "anomaly_map": ([case.map for case in cases], [1, image.size, image.size]),
        "reconstruction": (
            [case.reconstruction for case in cases],
            [image.channels, image.size, image.size],
        ),
    }
    values, shape = columns[name]
    if any(value is None for value in values):
        raise Failure(400, "NO_SUCH_OUTPUT", f"this model gives no {name}", "leave it out")
    data = np.asarray(values, np.float64).ravel().tolist()
    return OutputTensor(name=name, shape=[len(cases), *shape], data=data)
