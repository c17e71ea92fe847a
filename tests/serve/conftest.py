"""A real bundle with random weights, and the endpoint's application in this process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from fastapi import FastAPI
from PIL import Image
from torch import nn

from gan_ray.artifacts.bundle import load_bundle, save_bundle
from gan_ray.artifacts.golden import Golden, golden_images
from gan_ray.artifacts.manifest import Manifest, Training, software
from gan_ray.config import to_dict
from gan_ray.data.transforms import preprocessing_hash
from gan_ray.detector import Detector
from gan_ray.experiment import build_detector, make
from gan_ray.scoring.calibration import calibrate
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import make_score
from serve.api import api
from serve.card import Card
from serve.line import Refused, Served
from serve.model import Job, Model, Reply
from serve.replica import Replica
from serve.settings import AppArgs

NORMALS = 39


def write_bundle(
    path: Path,
    *,
    name: str = "film",
    version: str = "1",
    calibrated: bool = True,
    adjust=lambda found: found,
    weights=lambda detector: None,
    golden=lambda scores: scores,
    **changes,
) -> Path:
    """Write a bundle of an untrained tiny Brainomaly, calibrated on noise and then adjusted.

    `weights` may change its networks first, `golden` what it says of its golden scores.
    """
    experiment = make("brainomaly", preset="tiny", changes=changes)
    detector = build_detector(experiment).eval()
    with torch.no_grad():
        weights(detector)
    scorer = Scorer(detector, make_score(experiment.score, detector))
    images = golden_images(detector.image)
    shape = (NORMALS, *images.shape[1:])
    normals = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    result = scorer.score_images(normals, maps=True)
    calibration = adjust(calibrate(result.scores, 0.1, result.maps))
    fit = experiment.data.fit
    manifest = Manifest(
        name=name,
        version=version,
        architecture="brainomaly",
        experiment=to_dict(experiment),
        image=detector.image,
        fit=fit,
        preprocessing=preprocessing_hash(detector.image, fit),
        score=to_dict(experiment.score),
        calibration=to_dict(calibration) if calibrated else None,
        data_fingerprint="0" * 16,
        metrics={},
        passes_per_image=detector.passes_per_image,
        software=software(),
        training=Training(images=0, stage="gan", selection="untrained"),
        files={},
    )
    scores = golden(scorer.score_images(images).scores)
    return save_bundle(path, detector, manifest, golden=Golden(images, scores))


def nan_on_checkerboards(detector: Detector, sign: float = -1.0) -> None:
    """Make a network overflow to NaN where an image is a checkerboard, and nowhere else.

    With `sign` 1: where it is smooth, as golden images are.
    """
    first = next(m for m in detector.networks["generator"].modules() if isinstance(m, nn.Conv2d))
    y, x = np.indices(first.weight.shape[-2:])
    first.weight[0] = torch.from_numpy(1e37 * sign ** (x + y))  # 49 of them are beyond float32


def shifted(scores: np.ndarray) -> np.ndarray:
    """Give golden scores that are not those of the network."""
    return scores + np.float32(0.01)


def flip_a_byte(file: Path) -> None:
    """Change one bit of the last byte of a file; twice is not at all."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def png(
    seed: int = 0,
    *,
    size: tuple[int, int] = (24, 20),
    sixteen: bool = False,
    checkerboard: bool = False,
) -> bytes:
    """Give a PNG of noise, 8 or 16 bit, or of a checkerboard 16 by 16."""
    top, dtype = (65536, np.uint16) if sixteen else (256, np.uint8)
    pixels = np.random.default_rng(seed).integers(0, top, size, dtype)
    if checkerboard:
        pixels = (255 * (np.indices((16, 16)).sum(0) % 2)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@dataclasses.dataclass(frozen=True)
class InProcess:
    """A served model without Ray."""

    card: Card
    model: Model

    def admit(self) -> None:
        """Take everything."""

    async def score(self, job: Job) -> Reply:
        images = await asyncio.to_thread(self.model.read, job)
        return (await asyncio.to_thread(self.model.score, [images]))[0]

    async def ready(self) -> None:
        await asyncio.to_thread(self.model.check_golden)


@dataclasses.dataclass(frozen=True)
class Followable:
    """The versions of a served model without Ray: one scoring process, in this one."""

    replica: Replica

    async def load(self, reference: str) -> Served:
        """Give one of them.

        Raises:
            Refused: it must not answer.
        """
        told = await self.replica.load(reference)
        if isinstance(told, str):
            raise Refused(told)
        return InProcess(Card(told), self.replica._models[reference])


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "film")


@pytest.fixture(scope="session")
def scorer(bundle: Path) -> Scorer:
    return Scorer.from_bundle(load_bundle(bundle))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with forty images and one that is none."""
    folder = tmp_path_factory.mktemp("store")
    for index in range(40):
        (folder / f"{index:02}.png").write_bytes(png(index, sixteen=index % 3 == 0))
    (folder / "broken.png").write_bytes(png()[:60])
    return folder


@pytest.fixture
def endpoint(bundle: Path, store: Path) -> Iterator[Callable[..., httpx.Client]]:
    """Make a client of the application, served over HTTP by this process without Ray.

    Arguments are bundles (default: the one) and fields of `AppArgs`.
    """
    with contextlib.ExitStack() as stack:

        def client(*bundles: Path, **fields) -> httpx.Client:
            paths = bundles or (bundle,)
            defaults = {"host": "127.0.0.1", "token": "", "allow": (str(store),)}
            args = AppArgs(**{"bundles": [str(path) for path in paths], **defaults, **fields})
            models = {}
            for path in paths:
                card = Card.read(path)
                models[card.name] = InProcess(card, Model(load_bundle(path), limits=args.limits))
            url = stack.enter_context(running(api(args, models)))
            return stack.enter_context(httpx.Client(base_url=url, timeout=30))

        yield client


@contextlib.contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve an application on a free port of this machine; give its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
    threading.Thread(target=server.run, args=([listener],), daemon=True).start()
    while not server.started:
        time.sleep(0.005)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True  # seen within 0.1 s
