"""Training, evaluation, buckets and HTTP see the same pixels in the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gan_ray.artifacts.bundle import load_bundle
from gan_ray.config import DataConfig
from gan_ray.data.items import digest
from gan_ray.data.sources import load_test, load_training
from gan_ray.detector import ImageSpec
from gan_ray.scoring.batch import read_rows, score_prefix
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import make_score
from gan_ray.storage import open_store
from serve.model import Case, Job, Model
from tests.data.dicoms import CANARY, twelve
from tests.data.trees import noise, write_folder

PARTS = {"train/normal": 12, "train/unlabeled": 4, "test/normal": 3, "test/abnormal": 3}


def film(number: int) -> bytes:
    """A film whose every tag matters: the window, the rescaling and the inversion."""
    tags = {"WindowCenter": 500, "WindowWidth": 3000, "RescaleSlope": 2, "RescaleIntercept": -900}
    pixels = noise(number, 20, np.uint16) >> np.uint16(4)
    return twelve(pixels, PhotometricInterpretation="MONOCHROME1", **tags)


@pytest.fixture(scope="module")
def films() -> dict[str, bytes]:
    """Half of the names have no ending, as archives write them."""
    names = [
        f"{part}/IM{n:04d}{'.dcm' * (n % 2)}" for part, count in PARTS.items() for n in range(count)
    ]
    return {name: film(number) for number, name in enumerate(names)}


def test_all_roads_lead_to_the_same_pixels_and_scores(
    films: dict[str, bytes], tmp_path: Path, bundle: Path
):
    root = write_folder(tmp_path / "data", films)
    model = Model(load_bundle(bundle))
    spec: ImageSpec = model.bundle.detector.image
    data = DataConfig(root=root, image_size=spec.size, channels=spec.channels)
    seen = {}
    trained = load_training(data)
    for split in (trained.normal, trained.unlabeled, trained.select, trained.calibrate):
        seen |= dict(zip(split.ids, split.images, strict=True))
    tested = load_test(data).split
    seen |= dict(zip(tested.ids, tested.images, strict=True))
    served = model.read(Job(files=tuple(films.values())))
    assert len(seen) == len(films) == len(served.rows)
    for content, row in zip(films.values(), served.rows, strict=True):
        assert row.dtype == np.uint16
        np.testing.assert_array_equal(row, seen[digest(content)])

    scorer = Scorer(model.bundle.detector, make_score(model.bundle.score, model.bundle.detector))
    files = scorer.score_files(list(films.items()))
    (reply,) = model.score([served])
    rows = in_a_bucket(bundle, tmp_path)
    for index, (name, content) in enumerate(films.items()):
        case = reply.cases[index]
        assert isinstance(case, Case)
        by_evaluation = scorer.score_images(seen[digest(content)][None]).scores[0]
        scores = [files[index].score, rows[name], case.score]
        np.testing.assert_allclose(scores, by_evaluation, rtol=1e-6)


def in_a_bucket(bundle: Path, place: Path) -> dict[str, float]:
    """Scores by key of all files below `place`/data, as a batch job gives them."""
    source, sink = place / "data", str(place / "sink")
    score_prefix(bundle, str(source), sink, workers=0)
    start = len(open_store(str(source)).uri) + 1
    return {row["uri"][start:]: row["score"] for row in read_rows(sink).to_pylist()}


def test_what_http_says_of_a_damaged_film_says_nothing_of_its_patient(bundle: Path):
    model = Model(load_bundle(bundle))
    whole = film(0)
    for length in range(0, len(whole), 37):
        (row,) = model.read(Job(files=(whole[:length],))).rows
        assert CANARY not in repr(row)
