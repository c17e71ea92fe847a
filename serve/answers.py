"""From what became of a job to what the client reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gan_ray.scoring.calibration import calibration_warnings
from serve.card import Card
from serve.failures import Failure
from serve.maps import Shown
from serve.model import Case, Fault, Reply
from serve.pictures import png8
from serve.schemas import Scored, ScoreResponse, Timing, Unscored


def raise_fault(fault: Fault) -> None:
    """Fail the request as its only image failed."""
    raise Failure(fault.status, fault.code, fault.error, "send an image that this model can read")


def score_response(
    card: Card,
    request_id: str,
    names: Sequence[str],
    reply: Reply,
    *,
    maps: Shown | None,
    reconstructions: bool,
    stratum: str = "",
) -> str:
    """Give a `ScoreResponse` as JSON: one output per image, in their order, all of one `stratum`.

    Raises what `maps` raises.
    """
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
        if maps is not None and case.map is not None:
            output.map = maps(case.map)
        if reconstructions and case.image is not None:
            output.image = png8(case.image, 0, np.iinfo(case.image.dtype).max)
            if case.reconstruction is not None:
                output.reconstruction = png8(case.reconstruction, -1.0, 1.0)
        return output

    response = ScoreResponse(
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
    return response.model_dump_json()
