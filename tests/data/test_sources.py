"""The two doors: what training sees, what it never opens, and what evaluation refuses."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_ray.config import DataConfig
from gan_ray.data.sources import TrainingData, load_test, load_training
from gan_ray.data.streams import Streams
from gan_ray.errors import ConfigError, DataError
from tests.data.trees import folders, noise, png, write_folder, write_zip

PATIENTS = r"^(p\d+-tr|p\d+-te\d+)"
"""Six patients in training; each test image of its own."""


def settings(root: str, **changes: object) -> DataConfig:
    return DataConfig(root=root, image_size=12, **changes)


def groups(data: TrainingData) -> list[set[str]]:
    return [set(part.groups) for part in (data.normal, data.select, data.calibrate)]


@pytest.mark.parametrize("packed", [False, True], ids=["directory", "zip"])
def test_training_never_opens_a_test_file(tmp_path: Path, packed: bool):
    poisoned = {
        name: b"poison" if name.startswith("test/") else content
        for name, content in folders(masks=True).items()
    }
    write = write_zip if packed else write_folder
    root = write(tmp_path / "set", poisoned)
    if not packed:
        for path in (tmp_path / "set" / "test").rglob("*.png"):
            path.unlink()
            path.symlink_to(tmp_path / "nowhere")
    elif b"poison" not in Path(root).read_bytes():
        pytest.fail("the zip is not poisoned")
    trained = load_training(settings(root))
    healthy = load_training(settings(write(tmp_path / "healthy", folders(masks=True))))
    assert trained.fingerprint == healthy.fingerprint
    with pytest.raises(DataError, match="9 of 9 files cannot be used"):
        load_test(settings(root))


def test_training_parts_have_all_images_once_and_share_no_patient(tmp_path: Path):
    files = folders({"train/normal": 40, "train/unlabeled": 6, "test/normal": 1})
    root = write_folder(tmp_path, files)
    data = load_training(settings(root, group_pattern=PATIENTS, holdout=0.4))
    normal, select, calibrate = groups(data)
    assert not normal & select
    assert not normal & calibrate
    assert not select & calibrate
    ids = np.concatenate([data.normal.ids, data.select.ids, data.calibrate.ids])
    assert len(set(ids)) == len(ids) == 40
    pixels = np.concatenate([data.normal.images, data.select.images, data.calibrate.images])
    stored = {noise(number).tobytes() for number in range(40)}
    assert {image.tobytes() for image in pixels} == stored


def test_added_images_move_no_held_out_image(tmp_path: Path):
    few, many = folders({"train/normal": 60}), folders({"train/normal": 75})
    before = load_training(settings(write_folder(tmp_path / "few", few), holdout=0.4))
    after = load_training(settings(write_folder(tmp_path / "many", many), holdout=0.4))
    for part in ("normal", "select", "calibrate"):
        old, new = getattr(before, part), getattr(after, part)
        assert set(old.ids) == set(new.ids) - {_id(many[n]) for n in set(many) - set(few)}


def _id(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def test_the_fingerprint_names_the_content_not_the_place(tmp_path: Path):
    files = folders()
    folder = write_folder(tmp_path / "a", files)
    first = load_training(settings(folder)).fingerprint
    assert load_training(settings(write_zip(tmp_path / "b.zip", files))).fingerprint == first
    other = {**files, "train/normal/p0-tr000.png": png(noise(999))}
    for changed in (
        settings(write_folder(tmp_path / "c", other)),
        settings(folder, channels=3),
        settings(folder, fit="pad"),
        settings(folder, holdout=0.5),
        dataclasses.replace(settings(folder), image_size=13),
    ):
        assert load_training(changed).fingerprint != first


def test_the_fingerprint_knows_whose_images_they_are(tmp_path: Path):
    root = write_folder(tmp_path / "set", folders())
    prints = set()
    for patients in (9, 8):
        groups = [
            f"{name},{number % patients if 'unlabeled' in name else name}"
            for number, name in enumerate(folders())
        ]
        (tmp_path / "who.csv").write_text("\n".join(["file,group", *groups]))
        prints.add(load_training(settings(root, manifest="who.csv")).fingerprint)
    assert len(prints) == 2


def test_one_image_of_sixteen_bits_widens_every_part(tmp_path: Path):
    files = folders()
    files["train/unlabeled/z.png"] = png(noise(0, 12, np.uint16))
    data = load_training(settings(write_folder(tmp_path, files)))
    assert data.unlabeled is not None
    parts = (data.normal, data.unlabeled, data.select, data.calibrate)
    assert {part.images.dtype for part in parts} == {np.dtype(np.uint16)}


def test_a_patient_in_training_and_test_is_refused_by_both_doors(tmp_path: Path):
    root = write_folder(tmp_path, folders())
    data = settings(root, group_pattern=r"^(p\d+)-")
    for door in (load_training, load_test):
        with pytest.raises(
            DataError, match="both in the training and in the test data: 'p0', 'p1'"
        ):
            door(data)


def test_a_patient_in_the_unlabeled_mix_too_is_let_through(tmp_path: Path):
    root = write_folder(tmp_path, folders())
    data = load_training(settings(root, group_pattern=PATIENTS))
    assert data.unlabeled is not None
    assert set(data.unlabeled.groups) & set(data.normal.groups)


def mixed(tmp_path: Path, **changes: object) -> DataConfig:
    """Sixty unlabeled images, three of each of twenty patients."""
    files = folders({"train/normal": 24, "train/unlabeled": 60, "test/normal": 1})
    rows = [f"{name},{number % 20 if 'unlabeled' in name else name}"
            for number, name in enumerate(files)]  # fmt: skip
    root = write_folder(tmp_path / "set", files)
    (tmp_path / "who.csv").write_text("\n".join(["file,group", *rows]))
    return settings(root, manifest="who.csv", **changes)


def test_what_is_held_out_of_the_mix_never_enters_a_training_batch(tmp_path: Path):
    data = load_training(mixed(tmp_path, mix_held_out=0.3))
    assert data.unlabeled is not None
    assert data.held_out_mix is not None
    assert data.mix is data.held_out_mix
    assert not set(data.unlabeled.groups) & set(data.held_out_mix.groups), "patients stay together"
    assert len(data.unlabeled) + len(data.held_out_mix) == 60
    device, dtype = torch.device("cpu"), torch.float64
    streams = Streams(data, ("normal", "unlabeled"), seed=0, device=device, dtype=dtype)
    seen = set()
    for images in range(0, 240, 24):
        batch = streams.batch(stage="gan", images=images, size=24, rank=0, world=1)
        pixels = ((batch["unlabeled"] + 1) * 127.5).round().to(torch.uint8).numpy()
        seen |= {image.tobytes() for image in pixels}
    assert seen == {image.tobytes() for image in data.unlabeled.images}
    assert not seen & {image.tobytes() for image in data.held_out_mix.images}


def test_without_it_selection_looks_at_the_mix_that_is_trained_on(tmp_path: Path):
    plain, held = (load_training(mixed(tmp_path / str(s), mix_held_out=s)) for s in (0.0, 0.3))
    assert plain.mix is plain.unlabeled
    assert plain.held_out_mix is None
    assert plain.fingerprint != held.fingerprint
    assert list(plain.select.ids) == list(held.select.ids)


def test_a_share_of_the_mix_that_leaves_nothing_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="both need one"):
        load_training(mixed(tmp_path, mix_held_out=1.0))
    files = folders({"train/normal": 24, "test/normal": 1})
    with pytest.raises(ConfigError, match="no unlabeled mix"):
        load_training(settings(write_folder(tmp_path / "none", files), mix_held_out=0.5))


def test_an_unreadable_training_image_stops_before_training_with_its_name(tmp_path: Path):
    files = {**folders(), "train/unlabeled/bad.png": b"no image"}
    with pytest.raises(DataError, match=r"^'train/unlabeled/bad\.png' is not a PNG"):
        load_training(settings(write_folder(tmp_path, files)))


def test_no_normals_and_no_test_images_are_refused(tmp_path: Path):
    files = folders({"train/unlabeled": 3})
    root = write_folder(tmp_path, files)
    with pytest.raises(DataError, match="no normal training images"):
        load_training(settings(root))
    with pytest.raises(DataError, match="no test images"):
        load_test(settings(root))


@pytest.mark.parametrize(
    "changes",
    [{"holdout": 0.0}, {"holdout": 1.0}, {"abnormal_share": 1.1}, {"image_size": 0}],
)
def test_settings_that_cannot_work_are_refused_by_name(changes: dict[str, float]):
    (name,) = changes
    with pytest.raises(ConfigError, match=rf"data\.{name} is {changes[name]}"):
        load_training(dataclasses.replace(DataConfig(source="digits", normal_class=0), **changes))


@pytest.mark.parametrize(
    ("name", "train", "test", "masks"),
    [
        ("cxr_pediatric", (835, 500), (231, 387), False),
        ("brain_lgg_flair", (520, 406), (125, 125), True),
    ],
)
def test_real_sets_have_their_published_counts(
    data_dir: Path, name: str, train: tuple[int, int], test: tuple[int, int], masks: bool
):
    path = data_dir / name / f"{name}.zip"
    if not path.is_file():
        pytest.skip(f"no {name}")
    data = DataConfig(root=str(path), image_size=32, manifest="manifest.csv")
    trained, tested = load_training(data), load_test(data)
    assert trained.unlabeled is not None
    held = len(trained.select) + len(trained.calibrate)
    assert (len(trained.normal) + held, len(trained.unlabeled)) == train
    assert not set(trained.select.groups) & set(trained.calibrate.groups)
    assert np.bincount(tested.labels).tolist() == list(test)
    assert (tested.masks is not None) == masks
    if tested.masks is not None:
        assert tested.masks.shape[1:] == (128, 128)
        assert (tested.masks.any(axis=(1, 2)) == (tested.labels == 1)).all()
