"""The lists of DDAD, MedIAnomaly and SAGAN: read unchanged, with the published mixes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_ray.config import DataConfig
from gan_ray.data.check import check
from gan_ray.data.data_json import DataJson, mixture
from gan_ray.data.sources import list_training, load_test, load_training
from gan_ray.errors import ConfigError, DataError
from gan_ray.storage import open_store
from tests.data.trees import noise, png, write_folder, write_zip

PUBLISHED = {
    "RSNA": (3851, 4000, 5012, 1000, 1000),
    "VinCXR": (4000, 5606, 3394, 1000, 1000),
    "LAG": (1500, 832, 900, 811, 811),
    "BrainTumor": (1000, 400, 600, 600, 600),
}
SMALL = (12, 8, 7, 5, 6)


def lists(sizes: tuple[int, ...]) -> dict[str, Any]:
    """Names whose first letter says what they are; numbers alone decide their order."""
    normal, mixed, planted, test_normal, test_abnormal = (
        [f"{number:05d}{letter}.png" for number in range(size)]
        for letter, size in zip("nmpxy", sizes, strict=True)
    )
    return {
        "train": {"0": normal, "unlabeled": {"0": mixed, "1": planted}},
        "test": {"0": test_normal, "1": test_abnormal},
    }


def names_of(plain: Any) -> list[str]:
    if isinstance(plain, dict):
        return [name for branch in plain.values() for name in names_of(branch)]
    return list(plain)


def files(
    plain: Mapping[str, Any], *, folder: str = "images", file: str = "data.json"
) -> dict[str, bytes]:
    images = {f"{folder}/{name}": png(noise(n)) for n, name in enumerate(names_of(plain))}
    return {**images, file: json.dumps(plain).encode()}


def data(root: str, **settings: object) -> DataConfig:
    return DataConfig(root=root, source="data-json", image_size=8, **settings)


def listed(root: Path, sizes: tuple[int, ...], **settings: object) -> DataJson:
    """The source over lists of that size, with images that nobody opens."""
    plain = lists(sizes)
    images = {f"images/{name}": b"" for name in names_of(plain)}
    content = {**images, "data.json": json.dumps(plain).encode()}
    return DataJson(data(write_zip(root / "set.zip", content), **settings))


def letters(items: object) -> dict[str, int]:
    found = [item.name[-5] for item in items]
    return {letter: found.count(letter) for letter in sorted(set(found))}


@pytest.mark.parametrize(
    ("name", "ratio", "mix", "note"),
    [
        ("RSNA", 0.6, {"m": 1541, "p": 2310}, ""),
        ("VinCXR", 0.6, {"m": 1600, "p": 2400}, ""),
        ("LAG", 0.6, {"m": 600, "p": 900}, ""),
        ("BrainTumor", 0.6, {"m": 400, "p": 600}, ""),
        ("RSNA", 0.0, {"m": 3851}, ""),
        ("RSNA", 1.0, {"p": 3851}, ""),
        ("VinCXR", 0.848, {"m": 608, "p": 3392}, ""),
        ("VinCXR", 0.9, {"m": 378, "p": 3393}, "3771 images .* instead of 4000"),
        ("LAG", 0.446, {"m": 831, "p": 669}, ""),
        ("LAG", 0.4, {"m": 832, "p": 554}, r"1386 images \(832 normal, 554 abnormal\)"),
        ("LAG", 0.8, {"m": 225, "p": 900}, "1125 images .* instead of 1500.*--data.anomaly-ratio"),
    ],
)
def test_the_published_lists_give_the_published_mixes(
    tmp_path: Path, name: str, ratio: float, mix: dict[str, int], note: str
):
    source = listed(tmp_path, PUBLISHED[name], anomaly_ratio=ratio)
    parts = source.training()
    assert letters(parts["train/normal"]) == {"n": PUBLISHED[name][0]}
    assert letters(parts["train/unlabeled"]) == mix
    assert letters(source.test()) == {"x": PUBLISHED[name][3], "y": PUBLISHED[name][4]}
    if note:
        assert len(source.notes) == 1
        assert re.search(note, source.notes[0])
    else:
        assert source.notes == ()


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 60), st.floats(0, 1))
def test_a_mix_is_the_largest_that_the_lists_can_give(
    normals: int, abnormal: int, size: int, ratio: float
):
    plain, planted = mixture(normals, abnormal, size, ratio)
    total = plain + planted
    assert 0 <= plain <= normals
    assert 0 <= planted <= abnormal
    assert total <= size
    assert abs(planted - ratio * total) < 1 + 1e-6
    if total < size:
        more = total + 1
        assert ratio * more > abnormal - 1e-6 or (1 - ratio) * more > normals - 1e-6


def test_the_mix_is_chosen_by_name_and_not_by_place_in_the_list(tmp_path: Path):
    plain = lists((6, 40, 40, 3, 3))
    chosen = []
    for turn in (1, -1):
        kinds = plain["train"]["unlabeled"]
        turned = {kind: names[::turn] for kind, names in kinds.items()}
        changed = {**plain, "train": {**plain["train"], "unlabeled": turned}}
        root = write_folder(tmp_path / str(turn), files(changed))
        mix = DataJson(data(root, unlabeled_size=10)).training()["train/unlabeled"]
        chosen.append([item.name for item in mix])
    assert chosen[0] == chosen[1] == sorted(chosen[0])
    assert letters(DataJson(data(root, unlabeled_size=10)).training()["train/unlabeled"]) == {
        "m": 4,
        "p": 6,
    }
    assert [name for name in chosen[0] if "m" in name] != [
        f"images/{number:05d}m.png" for number in range(4)
    ]


@pytest.fixture(params=["directory", "zip with a top folder", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    content = files(lists(SMALL), folder="train_png_512", file="rsna_data.json")
    if request.param == "directory":
        return write_folder(tmp_path / "set", content)
    if request.param.startswith("zip"):
        return write_zip(tmp_path / "set.zip", content, top="RSNA")
    uri = request.getfixturevalue("s3").uri + "/RSNA"
    for name, one in content.items():
        open_store(uri).put(name, one)
    return str(uri)


def test_a_set_is_trained_and_tested_on_from_anywhere(root: str):
    trained, test = load_training(data(root)), load_test(data(root))
    held = len(trained.select) + len(trained.calibrate)
    assert len(trained.normal) + held == 12
    assert trained.unlabeled is not None
    assert len(trained.unlabeled) == 11  # 7 of 11 are abnormal, as nearly as there are
    assert len(test.split) == 11
    assert test.labels.sum() == 6
    assert test.masks is None
    assert len(set(trained.normal.ids) & set(test.split.ids)) == 0


def test_the_order_of_the_test_items_tells_no_label(tmp_path: Path):
    source = listed(tmp_path, SMALL)
    names = [item.name for item in source.test()]
    assert names == sorted(names)
    labels = source.labels().labels.tolist()
    assert labels == [int(name.endswith("y.png")) for name in names]
    assert labels not in (sorted(labels), sorted(labels)[::-1])


def test_a_set_without_unlabeled_lists_is_trained_on_its_normals(tmp_path: Path):
    plain = lists(SMALL)
    del plain["train"]["unlabeled"]
    root = write_folder(tmp_path, files(plain))
    assert load_training(data(root)).unlabeled is None
    assert check(data(root))["ok"]


def test_a_smaller_mix_is_said_by_the_check_and_before_training(tmp_path: Path):
    root = write_folder(tmp_path, files(lists(SMALL)))
    said = [text for text in check(data(root))["warnings"] if "unlabeled mix" in text]
    assert len(said) == 1
    assert list(list_training(data(root)).notes) == said


def test_training_does_without_the_test_images(tmp_path: Path):
    plain = lists(SMALL)
    content = files(plain)
    for name in names_of(plain["test"]):
        del content[f"images/{name}"]
    root = write_folder(tmp_path, content)
    assert len(load_training(data(root)).normal)
    with pytest.raises(DataError, match=r"11 of the 11 images that 'data.json' names .*00000x.png"):
        load_test(data(root))


def test_patients_and_classes_may_come_from_a_manifest(tmp_path: Path):
    plain = lists(SMALL)
    rows = [f"images/{name},p{n // 2},front" for n, name in enumerate(names_of(plain))]
    content = {**files(plain), "m.csv": "\n".join(["file,group,class", *rows]).encode()}
    root = write_folder(tmp_path, content)
    items = list_training(data(root, manifest="m.csv", classes="source")).normal
    assert {item.kind for item in items} == {"front"}
    assert len({item.group for item in items}) < len(items)


def test_a_patient_on_both_sides_is_refused(tmp_path: Path):
    root = write_folder(tmp_path, files(lists(SMALL)))
    with pytest.raises(DataError, match="both in the training and in the test data"):
        load_training(data(root, group_pattern=r"^(\d+)"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"\xff\xfe", "not readable as JSON"),
        (b"[]", 'no object "train"'),
        (b'{"train": {"0": []}}', 'no object "test"'),
        (b'{"train": {}, "test": {"0": [], "1": []}}', 'no list of names "0" in "train"'),
        (b'{"train": {"0": [1]}, "test": {"0": [], "1": []}}', 'no list of names "0" in "train"'),
        (b'{"train": {"0": []}, "test": {"0": []}}', 'no list of names "1" in "test"'),
        (b'{"train": {"0": ["a", "a"]}, "test": {"0": [], "1": []}}', "'a'.*one list"),
        (b'{"train": {"0": []}, "test": {"0": ["a"], "1": ["a"]}}', "more than once in test"),
    ],
)
def test_a_file_of_another_form_is_refused_with_the_form(
    tmp_path: Path, content: bytes, reason: str
):
    root = write_folder(tmp_path, {"data.json": content, "images/a": b""})
    with pytest.raises(DataError, match=reason):
        DataJson(data(root))


def test_an_image_in_training_and_test_is_refused(tmp_path: Path):
    plain = lists(SMALL)
    plain["test"]["1"].append(plain["train"]["0"][0])
    with pytest.raises(DataError, match="both in the training and in the test data"):
        load_training(data(write_folder(tmp_path, files(plain))))


def test_a_name_cannot_lead_out_of_the_root(tmp_path: Path):
    plain = lists(SMALL)
    plain["train"]["0"].append("../../secret.png")
    (tmp_path / "secret.png").write_bytes(png(noise(1)))
    with pytest.raises(DataError, match=r"1 of the 13 .*secret.png"):
        load_training(data(write_folder(tmp_path / "set", files(lists(SMALL)) | {
            "data.json": json.dumps(plain).encode()})))  # fmt: skip


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("images/a.png",), "none of the files data.json, rsna_data.json"),
        (("images/a.png", "rsna_data.json", "vin_data.json"), "more than one of the files"),
        (("data.json",), "neither of the folders images and train_png_512"),
        (("data.json", "images/a.png", "train_png_512/a.png"), "both of the folders"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, names: tuple[str, ...], reason: str):
    content = json.dumps(lists(SMALL)).encode()
    with pytest.raises(DataError, match=reason):
        DataJson(data(write_folder(tmp_path, dict.fromkeys(names, content))))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"normal_class": 0}, "no effect on source 'data-json'"),
        ({"classes": "source"}, "no manifest is named"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    tmp_path: Path, settings: dict[str, object], reason: str
):
    with pytest.raises(ConfigError, match=reason):
        listed(tmp_path, SMALL, **settings)


def test_a_ratio_that_no_mix_can_have_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"anomaly_ratio 0.6: the lists hold 8 normal and 0"):
        listed(tmp_path, (12, 8, 0, 5, 6))
