"""The routes: Open Inference Protocol v2 and its extension `score`."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from gan_ray.data.brightness import MAX_PIXELS
from serve import answers, bodies, maps, tensors
from serve.failures import Failure
from serve.guard import authorise
from serve.line import Line, Version
from serve.model import Fault, Job, Reply
from serve.schemas import (
    IndexEntry,
    InferResponse,
    Live,
    ModelMetadata,
    Ready,
    Refusal,
    ScoreResponse,
    ServerMetadata,
)
from serve.settings import DEADLINE_S, AppArgs

REFUSALS = {status: {"model": Refusal} for status in (400, 401, 403, 404, 413, 415, 422, 429)}

health = APIRouter(prefix="/v2/health", tags=["health"])
protocol = APIRouter(
    prefix="/v2",
    tags=["inference"],
    dependencies=[Depends(authorise)],
    responses=REFUSALS,  # type: ignore[arg-type]
)
models = APIRouter()  # part of `protocol`, below a model and below a version of it


async def line(request: Request, model: str) -> Line:
    """Give the versions of the model that the URL names.

    Raises:
        Failure: there is none (404).
    """
    models: dict[str, Line] = request.app.state.models
    if model not in models:
        hint = f"models here: {', '.join(sorted(models))}"
        raise Failure(404, "UNKNOWN_MODEL", f"there is no model '{model[:128]}'", hint)
    return models[model]


Versions = Annotated[Line, Depends(line)]


async def of_version(request: Request, versions: Versions, version: str) -> None:
    """Take the version that the URL names, in place of the newest.

    Raises:
        Failure: it is not served (404).
    """
    request.state.chosen = versions.version(version)


async def chosen(request: Request, versions: Versions) -> Version:
    """Give the version that the URL names, or the newest; the same through the whole request."""
    found: Version | None = getattr(request.state, "chosen", None)
    request.state.chosen = found or versions.version()
    version: Version = request.state.chosen
    return version


async def settings(request: Request) -> AppArgs:
    """Give the operator's settings."""
    args: AppArgs = request.app.state.args
    return args


Chosen = Annotated[Version, Depends(chosen)]
Settings = Annotated[AppArgs, Depends(settings)]


@health.get("/live")
async def live() -> Live:
    """Tell that the process answers."""
    return Live()


@health.get("/ready", responses={503: {"model": Refusal}})
async def ready(request: Request, args: Settings) -> Ready:
    """Tell whether every model reproduces its golden scores."""
    return await _ready(args, *(model.version() for model in request.app.state.models.values()))


@protocol.get("")
async def server(request: Request, args: Settings) -> ServerMetadata:
    """Describe the server."""
    return ServerMetadata(
        name="gan-ray",
        version=version("gan-ray"),
        extensions=[
            "binary_tensor_data",
            "score",
            *(["uris"] if args.allow else []),
            *(["jobs"] if args.allow_sink else []),
        ],
        models=sorted(request.app.state.models),
        limits={
            **args.limits.model_dump(),
            "deadline_s": args.limits.deadline_s or DEADLINE_S,
            "pixels": MAX_PIXELS,
        },
    )


@protocol.post("/repository/index")
async def index(request: Request) -> list[IndexEntry]:
    """List all versions of all models, those that are refused with the reason."""
    found = []
    for name, versions in request.app.state.models.items():
        served = dict.fromkeys(versions.versions, "")
        for version_, why in {**served, **versions.refused}.items():
            state: Literal["READY", "UNAVAILABLE"] = "UNAVAILABLE" if why else "READY"
            found.append(IndexEntry(name=name, version=version_, state=state, reason=why))
    return found


@protocol.post("/repository/models/{model}/{action}", responses={403: {"model": Refusal}})
async def control(model: str, action: Literal["load", "unload"]) -> None:
    """Refuse: what is served is the operator's choice and the registry's."""
    hint = "publish a version to the registry of `name@newest`, or start the endpoint otherwise"
    raise Failure(403, "NO_MODEL_CONTROL", f"clients may not {action} models", hint)


@models.get("")
async def metadata(model: Chosen, versions: Versions, args: Settings) -> ModelMetadata:
    """Describe a model; `refused` of its parameters tells why newer versions are not served."""
    return model.card.metadata(args, versions.versions, versions.refused)


@models.get("/ready", responses={503: {"model": Refusal}})
async def model_ready(model: Chosen, args: Settings) -> Ready:
    """Tell whether a model reproduces its golden scores."""
    return await _ready(args, model)


@models.post("/score", response_model=ScoreResponse, responses={207: {"model": ScoreResponse}})
async def score(
    request: Request,
    model: Chosen,
    args: Settings,
    map_: Annotated[maps.How | None, Query(alias="map")] = None,
    reconstruction: Annotated[Literal["png8"] | None, Query()] = None,
    stratum: Annotated[str, Query(max_length=128)] = "",
) -> Response:
    """Score an image body, the files of a multipart body, or a JSON list of URIs as one batch.

    207 says that some of several images could not be scored. `map=url` writes maps to the sink;
    `f16` (little-endian values, row by row) and `png8` put them into the answer. `stratum` names
    the scanner, site, ... that all images are of, where the bundle has a threshold for it.
    """
    model.admit()
    limits = args.limits
    shown, reconstructions = maps.way(map_, model.card, args), reconstruction is not None
    wanted = map_ is not None
    kind = bodies.content_type(request, bodies.SCORE_TYPES)
    files: tuple[bytes, ...] = ()
    uris: tuple[str, ...] = ()
    if kind == "application/json":
        uris = await bodies.uris(request, limits, request.app.state.allow)
    elif kind == "multipart/form-data":
        files = await bodies.parts(request, limits)
    else:
        files = (await bodies.whole(request, limits),)
    names = uris or tuple(str(index) for index in range(len(files)))
    if (wanted or reconstructions) and len(names) > limits.parts:
        error = f"{len(names)} images are too many for pictures inside the answer"
        hint = f"ask for pictures of up to {limits.parts} images"
        raise Failure(413, "TOO_MANY_PICTURES", error, hint)
    reply = await _within(args, model, Job(files, uris, None, wanted, reconstructions, stratum))
    failed = [case for case in reply.cases if isinstance(case, Fault)]
    if failed and kind in bodies.IMAGE_TYPES:
        answers.raise_fault(failed[0])
    # Ready bytes: FastAPI would check each output once more, in the thread of all requests.
    body = await asyncio.to_thread(
        answers.score_response,
        model.card,
        request.state.request_id,
        names,
        reply,
        maps=shown,
        reconstructions=reconstructions,
        stratum=stratum,
    )
    return Response(body, 207 if failed else 200, media_type="application/json")


@models.post("/infer", response_model=InferResponse, response_model_exclude_none=True)
async def infer(request: Request, model: Chosen, args: Settings) -> InferResponse | Response:
    """Score images given as numbers (tensors of the Open Inference Protocol v2, JSON or binary)."""
    model.admit()
    wanted, raw = await tensors.read(request, args.limits)
    names = {output.name for output in wanted.outputs}
    pixels = tensors.pixels(wanted, raw, model.card.image, args.limits)
    job = Job((), (), pixels, "anomaly_map" in names, "reconstruction" in names)
    reply = await _within(args, model, job)
    return tensors.answer(model.card, request.state.request_id, wanted, reply)


async def _within(args: AppArgs, model: Version, job: Job) -> Reply:
    seconds = model.card.pace(args).deadline_s
    try:
        return await asyncio.wait_for(model.score(job), seconds)
    except TimeoutError:
        hint = "send fewer images at once, or try again later"
        raise Failure(504, "DEADLINE", f"no scores within {seconds:g} s", hint) from None


async def _ready(args: AppArgs, *models: Version) -> Ready:
    checks = (asyncio.wait_for(m.ready(), m.card.pace(args).ready_s) for m in models)
    try:
        await asyncio.gather(*checks)
    except Failure:
        raise
    except Exception as error:
        message = "a model does not answer, or not with its golden scores"
        raise Failure(503, "NOT_READY", message, "wait, or read the server's log") from error
    return Ready()


protocol.include_router(models, prefix="/models/{model}")
protocol.include_router(
    models, prefix="/models/{model}/versions/{version}", dependencies=[Depends(of_version)]
)
