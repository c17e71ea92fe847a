"""Images as numbers: tensors of the Open Inference Protocol v2, in JSON or as bytes behind it.

With the protocol's binary extension a body is a JSON document, whose length a header tells, and the
values behind it, little-endian and row-major: a fifth of the bytes, and no numbers to parse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import Request, Response

from gan_ray.detector import ImageSpec
from serve.answers import raise_fault
from serve.bodies import content_type, document, whole
from serve.card import Card
from serve.failures import Failure
from serve.model import Case, Fault, Reply
from serve.schemas import InferRequest, InferResponse, OutputTensor, WantedOutput
from serve.settings import Limits

LENGTH = "Inference-Header-Content-Length"
"""Header that tells the bytes of the JSON document; what follows is values."""
SIZE = "binary_data_size"
TYPES = ("application/json", "application/octet-stream")

_STORED: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}
_WISHES = (
    ("request", "binary_data_output", bool), ("input", SIZE, int), ("output", "binary_data", bool),
)  # fmt: skip
_NO_WISH = (("binary_data", False), ("binary_data_output", False))  # what clients send as a default


async def read(request: Request, limits: Limits) -> tuple[InferRequest, bytes]:
    """Give the document and the bytes behind it.

    Raises:
        Failure: it is none (400), too large (413) or of another type (415), or a parameter would
            have no effect (400).
    """
    content_type(request, TYPES)
    body = await whole(request, limits)
    stated = request.headers.get(LENGTH, str(len(body)))
    if not (stated.isascii() and stated.isdecimal() and int(stated) <= len(body)):
        error = f"{LENGTH} is no length inside of the body"
        raise Failure(400, "MALFORMED", error, "leave it out where all values are in the JSON")
    wanted = document(body[: int(stated)], InferRequest)
    _refuse_parameters(wanted)
    return wanted, body[int(stated) :]


def pixels(request: InferRequest, raw: bytes, image: ImageSpec, limits: Limits) -> np.ndarray:
    """Give the images [N, C, S, S] of an inference request as uint8 or uint16.

    FP32 is kept to 16 bits, the precision of the readers; images of 8 bits pass unchanged.

    Raises:
        Failure: shape, number or range of the values do not suit the model (400), or there are
            too many images (413).
    """
    tensor = request.inputs[0]
    size = tensor.parameters.get(SIZE)
    if (size is None) == (tensor.data is None) or len(raw) != (size or 0):
        error = f"the values are neither all in `data` nor all in the {SIZE} bytes behind the JSON"
        raise Failure(400, "MALFORMED", error, f"send one of the two, and {LENGTH} with bytes")
    stored = _STORED[tensor.datatype]
    count = len(raw) / stored.itemsize if tensor.data is None else len(tensor.data)
    wanted = [image.channels, image.size, image.size]
    images, *shape = tensor.shape
    if shape != wanted or images < 1 or images * int(np.prod(wanted)) != count:
        error = f"shape {tensor.shape} with {count:g} values does not suit the model"
        hint = f"send images of shape {wanted}, flat and row-major, with their number in front"
        raise Failure(400, "WRONG_SHAPE", error, hint)
    if images > limits.uris:
        error = f"{images} images are more than the {limits.uris} of one request"
        raise Failure(413, "TOO_MANY_IMAGES", error, "split them over several requests")
    numbers = np.frombuffer(raw, stored) if tensor.data is None else tensor.data
    values = np.asarray(numbers, np.float64).reshape(tensor.shape)
    low, high = (-1.0, 1.0) if tensor.datatype == "FP32" else (0.0, 255.0)
    if not ((values >= low) & (values <= high)).all():
        error = f"a value is outside [{low:g}, {high:g}], the range of {tensor.datatype}"
        raise Failure(400, "WRONG_RANGE", error, "scale the images to that range")
    if tensor.datatype == "FP32":
        return np.rint((values + 1.0) * 32767.5).astype(np.uint16)
    if (values % 1).any():
        raise Failure(400, "WRONG_RANGE", "a UINT8 value is no integer", "round the values")
    return values.astype(np.uint8)


def answer(
    card: Card, request_id: str, wanted: InferRequest, reply: Reply
) -> InferResponse | Response:
    """Give the wanted tensors, those that were asked for as bytes behind the JSON.

    Raises:
        Failure: the model offers no such output (400) or gave no finite score (500).
    """
    cases: list[Case] = []
    for case in reply.cases:
        if isinstance(case, Fault):
            raise_fault(case)
        else:
            cases.append(case)
    arrays = {output.name: _array(output.name, cases, card.image) for output in wanted.outputs}
    raw = [arrays[output.name].tobytes() for output in wanted.outputs if _is_raw(output, wanted)]
    response = InferResponse(
        model_name=card.name,
        model_version=card.manifest.version,
        id=wanted.id or request_id,
        outputs=[
            _tensor(output.name, arrays[output.name], as_bytes=_is_raw(output, wanted))
            for output in wanted.outputs
        ],
    )
    if not raw:
        return response
    head = response.model_dump_json(exclude_none=True).encode()
    headers = {LENGTH: str(len(head))}
    return Response(b"".join([head, *raw]), media_type=TYPES[1], headers=headers)


def _is_raw(output: WantedOutput, request: InferRequest) -> bool:
    every = request.parameters.get("binary_data_output", False)
    return bool(output.parameters.get("binary_data", every))


def _tensor(name: str, array: np.ndarray, *, as_bytes: bool) -> OutputTensor:
    shape = list(array.shape)
    if as_bytes:
        return OutputTensor(name=name, shape=shape, parameters={SIZE: array.nbytes})
    return OutputTensor(name=name, shape=shape, data=array.astype(np.float64).ravel().tolist())


def _array(name: str, cases: Sequence[Case], image: ImageSpec) -> np.ndarray:
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
    return np.asarray(values, _STORED["FP32"]).reshape(len(cases), *shape)


def _refuse_parameters(request: InferRequest) -> None:
    given = [(name, value, "request") for name, value in request.parameters.items()]
    given += [(*one, "input") for tensor in request.inputs for one in tensor.parameters.items()]
    given += [(*one, "output") for output in request.outputs for one in output.parameters.items()]
    for name, value, where in given:
        if (where, name, type(value)) not in _WISHES and (name, value) not in _NO_WISH:
            error = f"parameter '{name[:80]}' has no effect here, or not with this value"
            hint = f"known are {SIZE} of an input, binary_data of an output, binary_data_output"
            raise Failure(400, "UNKNOWN_PARAMETER", error, hint)
