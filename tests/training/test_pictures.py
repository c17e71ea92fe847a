"""Pictures and TensorBoard's records of real trainings on embedded digits."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gan_ray import experiment
from gan_ray.detector import Detector, ImageSpec, Latent
from gan_ray.training.pictures import write_latent
from gan_ray.training.run import RunFolder, load_detector
from gan_ray.training.session import run_session
from gan_ray.training.state import TrainState

LATENT = ("latent/samples/", "latent/walk/")


def train(folder: Path, name: str, *, samples: int = 3) -> RunFolder:
    """Train 64 images, with a report after every 16 and at the end of a stage."""
    settings = experiment.make(
        name,
        preset="tiny",
        changes={
            "data": {"source": "digits", "normal_class": 1, "image_size": 16},
            "train": {"images": 64, "report_every": 16, "batch_size": 4, "samples": samples,
                      "keep_checkpoints": 9},
        },
    )  # fmt: skip
    run = RunFolder(folder)
    run.claim(settings)
    run_session(settings, run)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    return train(tmp_path_factory.mktemp("run") / "f-anogan", "f-anogan")


@pytest.fixture(scope="module")
def averaged(tmp_path_factory) -> RunFolder:
    return train(tmp_path_factory.mktemp("run") / "alad", "alad")


@pytest.fixture(scope="module")
def board(run):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    everything = {"scalars": 0, "images": 0}
    return accumulator.EventAccumulator(str(run.directory / "tb"), everything).Reload()


def stages(run: RunFolder) -> dict[int, str]:
    return {row["images"]: row["stage"] for row in run.metrics()}


def pictures(run: RunFolder, prefix: str) -> dict[int, np.ndarray]:
    keys = [entry.key for entry in run.store.list(prefix)]
    return {int(Path(key).stem): np.asarray(Image.open(run.directory / key)) for key in keys}


def weights(run: RunFolder) -> dict[int, bytes]:
    return {images: run.store.get(f"checkpoints/{images:012d}/tensors.safetensors")
            for images in run.checkpoints()}  # fmt: skip


def test_every_report_of_every_stage_shows_the_latent_space(run):
    reports = stages(run)
    assert set(reports.values()) == {"gan", "encoder"}
    for folder in LATENT:
        assert list(pictures(run, folder)) == list(reports)
    restored = [images for images, stage in reports.items() if stage == "encoder"]
    assert list(pictures(run, "samples/")) == restored


def test_drawings_develop_with_the_generator_and_stay_when_it_is_frozen(run):
    reports = stages(run)
    for folder in LATENT:
        shown = pictures(run, folder)
        gan = [shown[images] for images, stage in reports.items() if stage == "gan"]
        assert not np.array_equal(gan[0], gan[-1])
        assert all(np.array_equal(shown[i], gan[-1]) for i in reports if reports[i] == "encoder")


@pytest.mark.parametrize("pictured", ["run", "averaged"])
def test_pictures_change_no_bit_of_the_training(tmp_path, request, pictured):
    pictured = request.getfixturevalue(pictured)
    plain = train(tmp_path, pictured.experiment().architecture, samples=0)
    assert len(weights(plain)) >= 4
    assert weights(pictured) == weights(plain)
    for folder in ("latent/", "samples/"):
        assert not pictures(plain, folder)


def test_the_detector_is_drawn_as_it_is_scored(tmp_path, averaged):
    """The averages of ALAD's weights, then, which are what a bundle carries."""
    state = TrainState(experiment.build_detector(averaged.experiment()))
    state.restore(averaged.snapshot(64))
    last = pictures(averaged, "latent/samples/")[64]

    def drawn(detector: Detector) -> np.ndarray:
        shown = write_latent(RunFolder(tmp_path), 64, detector.eval(), samples=3, seed=0)
        return shown["latent/samples"]

    assert np.array_equal(drawn(load_detector(averaged, "last")[0]), last)
    assert not np.array_equal(drawn(state.detector), last), "the live weights are others"


def test_a_system_without_latent_prior_has_no_such_pictures(tmp_path):
    ganomaly = train(tmp_path, "ganomaly")
    assert not list(ganomaly.store.list("latent/"))
    assert pictures(ganomaly, "samples/")


# The terms are those of the table in docs/systems/f-anogan.md, `step/term`.
def test_tensorboard_shows_the_terms_of_both_stages_over_images(run, board):
    terms = {
        "gan": {"critic/discrimination", "critic/gradient_penalty", "generator/adversarial"},
        "encoder": {"encoder/image", "encoder/features"},
    }
    rows = run.metrics()
    for stage, names in terms.items():
        expected = [row["images"] for row in rows if row["stage"] == stage]
        assert len(expected) >= 2
        for name in names:
            events = board.Scalars(name)
            assert [event.step for event in events] == expected
            values = [row[name] for row in rows if row["stage"] == stage]
            assert [event.value for event in events] == pytest.approx(values)
    validation = [event.step for event in board.Scalars("val/normal_score")]
    assert validation == [row["images"] for row in rows if row["stage"] == "encoder"]


def test_tensorboard_shows_the_pictures_of_the_run_folder(run, board):
    for tag in ("samples", "latent/samples", "latent/walk"):
        shown = pictures(run, f"{tag}/")
        events = board.Images(tag)
        assert [event.step for event in events] == list(shown)
        sizes = [(event.height, event.width) for event in events]
        assert sizes == [picture.shape[:2] for picture in shown.values()]


class Bands(Detector):
    """Draws a grey level: of the class, or half of the code's first number for class 0."""

    name = "bands"
    streams = ("normal", "class")
    infers: ClassVar = ("nothing",)

    def __init__(self, size: int, latent: int, classes: int) -> None:
        super().__init__(None, ImageSpec(size, 1, classes))
        self.latent = Latent(latent, "uniform")
        self.networks["nothing"] = torch.nn.Linear(1, 1)

    def stages(self):
        raise NotImplementedError

    def evidence(self, images, classes=None):
        raise NotImplementedError

    def draw(self, codes: Tensor, classes: Tensor | None = None) -> Tensor:
        levels = codes[:, 0] / 2 if classes is None or not classes.any() else classes / 8
        return levels[:, None, None, None].expand(-1, 1, self.image.size, self.image.size)


def tiles(picture: np.ndarray, side: int, columns: int) -> np.ndarray:
    """Middles of the tiles in the last line."""
    return picture[-side // 2 - 4, side // 2 :: side + 4, 0][:columns]


def test_samples_have_a_row_for_each_class(tmp_path):
    run = RunFolder(tmp_path)
    shown = write_latent(run, 0, Bands(96, 3, 3), samples=4, seed=0)["latent/samples"]
    assert shown.shape == (3 * (20 + 96 + 4), 4 * 100 - 4, 4)
    assert tiles(shown, 96, 4).tolist() == [round((2 / 8 + 1) * 127.5)] * 4
    assert list(pictures(run, "latent/samples/")) == [0]


@pytest.mark.parametrize(("size", "steps", "side"), [(16, 11, 64), (64, 11, 64), (256, 5, 256)])
def test_a_plane_of_large_images_has_fewer_of_them(tmp_path, size, steps, side):
    shown = write_latent(RunFolder(tmp_path), 0, Bands(size, 2, 2), samples=1, seed=0)
    walk = shown["latent/walk"]
    assert walk.shape == (20 + steps * (side + 4), steps * (side + 4) - 4, 4)
    levels = [round((-0.5 + step / (steps - 1) + 1) * 127.5) for step in range(steps)]
    np.testing.assert_allclose(tiles(walk, side, steps), levels, atol=1)
