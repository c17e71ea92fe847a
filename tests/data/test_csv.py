"""A table that says what each image is; labels that training must not see stay closed."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from gan_ray.config import DataConfig
from gan_ray.data.check import check
from gan_ray.data.manifest import Manifest
from gan_ray.data.sources import list_training, load_test, load_training
from gan_ray.errors import ConfigError, DataError
from gan_ray.storage import open_store
from tests.data.trees import noise, png, write_folder, write_zip

Row = dict[str, str]
MASK = png(np.eye(12, dtype=np.uint8) * 255)


def rows(*, masks: bool = False) -> list[Row]:
    """20 normals, 6 unlabeled, 4 + 3 validation and 5 + 6 test images, two per patient."""
    made = []
    for split, label, count in (
        ("train", "normal", 20),
        ("unlabeled", "", 6),
        ("val", "0", 4),
        ("val", "1", 3),
        ("test", "normal", 5),
        ("test", "abnormal", 6),
    ):
        for number in range(count):
            stem = f"{split}{label}{number:02d}"
            marked = masks and (split, label) == ("test", "abnormal")
            made.append(
                {
                    "file": f"pictures/{stem}.png",
                    "split": split,
                    "label": label,
                    "group": f"{split}-{label}-{number // 2}",
                    "sublabel": f"kind {number % 2}" if label == "abnormal" else "",
                    "mask": f"marks/{stem}.png" if marked else "",
                    "class": "front" if number % 2 else "side",
                    "remark": "café, with a comma",
                }
            )
    return made


def table(some: list[Row], *leave_out: str) -> bytes:
    columns = [name for name in some[0] if name not in leave_out]
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(some)
    return file.getvalue().encode("utf-8-sig")


def files(some: list[Row], *leave_out: str) -> dict[str, bytes]:
    images = {row["file"]: png(noise(number)) for number, row in enumerate(some)}
    masks = {row["mask"]: MASK for row in some if row["mask"]}
    return {**images, **masks, "manifest.csv": table(some, *leave_out)}


def data(root: str, **settings: object) -> DataConfig:
    return DataConfig(root=root, source="csv", image_size=12, **settings)


@pytest.fixture(params=["directory", "zip with a top folder", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    content = files(rows(masks=True))
    if request.param == "directory":
        return write_folder(tmp_path / "set", content)
    if request.param.startswith("zip"):
        return write_zip(tmp_path / "set.zip", content, top="some")
    uri = request.getfixturevalue("s3").uri + "/set"
    for name, one in content.items():
        open_store(uri).put(name, one)
    return str(uri)


def test_every_part_is_found_everywhere(root: str):
    trained, test = load_training(data(root)), load_test(data(root))
    assert len(trained.normal) == 20
    assert trained.unlabeled is not None
    assert len(trained.unlabeled) == 6
    assert len(trained.select) + len(trained.calibrate) == 4
    assert not set(trained.select.groups) & set(trained.calibrate.groups)
    assert trained.labelled is not None
    assert trained.labelled[1].sum() == 3
    assert test.labels.sum() == 6
    assert sorted(test.sublabels) == ["kind 0"] * 3 + ["kind 1"] * 3 + ["normal"] * 5
    assert test.masks is not None
    assert test.masks.any(axis=(1, 2)).tolist() == (test.labels == 1).tolist()
    assert Manifest(data(root)).ignored == ()


class _Closed(dict[str, object]):
    """Rows whose labels cannot be read where training has no business."""

    def __getitem__(self, name: str) -> object:
        row = super().__getitem__(name)
        assert row.part not in ("test", "train/unlabeled"), f"label of {name} was read"  # type: ignore[attr-defined]
        return row


def test_training_reads_no_label_of_test_and_unlabeled_rows(tmp_path: Path):
    source = Manifest(data(write_folder(tmp_path, files(rows()))))
    source._rows = _Closed(source._rows)  # type: ignore[assignment]
    assert len(source.training()["train/unlabeled"]) == 6
    assert len(source.test()) == 11
    assert len(source.test_groups()) == 6
    with pytest.raises(AssertionError, match="was read"):
        source.labels()


def test_labels_that_training_must_not_see_need_not_be_there(tmp_path: Path):
    some = [
        {**row, "label": "?"} if row["split"] in ("test", "unlabeled") else row for row in rows()
    ]
    root = write_folder(tmp_path, files(some))
    assert len(load_training(data(root)).normal) == 20
    assert check(data(root))["ok"]
    with pytest.raises(DataError, match=r"does not say whether 'pictures/test.*normal, good, 0"):
        load_test(data(root))


def test_an_unlabeled_image_says_nothing_of_its_label(tmp_path: Path):
    told = [{**row, "label": row["label"] or "abnormal"} for row in rows()]
    plain, known = (
        load_training(data(write_folder(tmp_path / name, files(some))))
        for name, some in (("a", rows()), ("b", told))
    )
    assert plain.fingerprint == known.fingerprint


def test_the_splits_of_our_folders_are_understood_without_a_label(tmp_path: Path):
    names = {"train": "train/good", "unlabeled": "train/unlabeled"}
    some = [
        {**row, "split": names.get(row["split"]) or row["split"] + "/" + (
            "normal" if row["label"] in ("0", "normal") else "abnormal")}
        for row in rows()
    ]  # fmt: skip
    root = write_folder(tmp_path, files(some, "label"))
    assert len(load_training(data(root)).normal) == 20
    assert load_test(data(root)).labels.sum() == 6


def test_without_the_column_group_each_file_is_its_own(tmp_path: Path):
    root = write_folder(tmp_path, files(rows(), "group"))
    assert check(data(root))["grouped_by"] == "file"
    by_name = data(root, group_pattern=r"^(\D+\d)")
    assert check(by_name)["grouped_by"] == "pattern"
    assert check(data(write_folder(tmp_path / "b", files(rows()))))["grouped_by"] == "manifest"


def test_a_patient_in_training_and_test_is_refused(tmp_path: Path):
    some = rows()
    some[-1]["group"] = some[0]["group"]
    root = write_folder(tmp_path, files(some))
    for load in (load_training, load_test):
        with pytest.raises(DataError, match="both in the training and in the test data"):
            load(data(root))
    assert not check(data(root))["ok"]


def test_classes_come_from_their_column(tmp_path: Path):
    root = write_folder(tmp_path, files(rows()))
    settings = data(root, classes="source", class_count=2)
    assert {item.kind for item in list_training(settings).normal} == {"front", "side"}
    assert set(load_test(settings).split.classes.tolist()) == {0, 1}
    with pytest.raises(ConfigError, match=r"manifest 'manifest.csv' has none"):
        load_training(data(write_folder(tmp_path / "b", files(rows(), "class")), classes="source"))


def test_a_table_beside_the_root_and_of_another_name_is_found(tmp_path: Path):
    content = files(rows())
    content["set.csv"] = content.pop("manifest.csv")
    beside = content.pop("set.csv")
    root = write_folder(tmp_path / "set", content)
    (tmp_path / "set.csv").write_bytes(beside)
    with pytest.raises(DataError, match=r"no manifest 'manifest.csv'"):
        load_training(data(root))
    assert len(load_training(data(root, manifest="set.csv")).normal) == 20


def test_remarks_are_no_kinds(tmp_path: Path):
    some = [{**row, "sublabel": f"pixels={n}"} for n, row in enumerate(rows())]
    root = write_folder(tmp_path, files(some))
    assert set(load_test(data(root)).sublabels) == {"normal", "abnormal"}


def test_files_that_no_row_names_are_told(tmp_path: Path):
    root = write_folder(tmp_path, {**files(rows()), "pictures/extra.png": png(noise(99))})
    assert check(data(root))["ignored"] == ["pictures/extra.png"]


def changed(where: int, **cells: str) -> list[Row]:
    some = rows(masks=True)
    some[where] |= cells
    return some


@pytest.mark.parametrize(
    ("some", "reason"),
    [
        (changed(0, label="abnormal"), r"1 row\(s\) .*abnormal training images.*split unlabeled"),
        (changed(0, label=""), "does not say whether 'pictures/trainnormal00.png' is normal"),
        (changed(0, label="ill"), "does not say whether"),
        (changed(0, split="train/abnormal"), "agree with its split"),
        (changed(0, split="training set"), "split 'training set', but train, unlabeled"),
        (changed(0, split=""), "the split ''"),
        (changed(1, file="pictures/trainnormal00.png"), "two rows for 'pictures/trainnormal00.png"),
        (changed(0, group=""), "no group for 'pictures/trainnormal00.png'"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_by_its_file(
    tmp_path: Path, some: list[Row], reason: str
):
    with pytest.raises(DataError, match=reason):
        load_training(data(write_folder(tmp_path, files(some))))


def test_files_and_masks_that_are_not_there_are_refused(tmp_path: Path):
    content = files(rows(masks=True))
    del content["pictures/trainnormal03.png"]
    with pytest.raises(DataError, match=r"1 of the 20 .*'pictures/trainnormal03.png'"):
        load_training(data(write_folder(tmp_path / "a", content)))
    content = files(rows(masks=True))
    del content["marks/testabnormal01.png"]
    with pytest.raises(DataError, match=r"1 of the 6 .*'marks/testabnormal01.png'"):
        load_test(data(write_folder(tmp_path / "b", content)))
    content = files(changed(-1, mask=""))
    with pytest.raises(DataError, match=r"a mask for 5 .*none for 'pictures/testabnormal05.png'"):
        load_test(data(write_folder(tmp_path / "c", content)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has the columns none"),
        (b"file,label\na.png,0\n", "has the columns file, label, but .*'split'"),
        (b'file,split\n"' + b"x" * 200_000 + b'",train\n', "not readable as CSV"),
        ("file,split\nü.png,train\n".encode("latin-1"), "not UTF-8"),
        (b"file,split\nonly-one-cell\n", "the split ''"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes, reason: str):
    root = write_folder(tmp_path, {"a.png": png(noise(0)), "manifest.csv": content})
    with pytest.raises(DataError, match=reason):
        Manifest(data(root))


def test_settings_of_other_sources_are_refused(tmp_path: Path):
    root = write_folder(tmp_path, files(rows()))
    with pytest.raises(ConfigError, match="no effect on source 'csv'"):
        Manifest(data(root, abnormal_class=0))


@pytest.mark.parametrize("name", ["defect_pcb", "brain_lgg_flair"])
def test_real_sets_read_by_their_table_are_those_read_by_their_folders(data_dir: Path, name: str):
    if not (data_dir / name).is_dir():
        pytest.skip(f"no {name}")
    root = str(data_dir / name / f"{name}.zip")
    by_table = DataConfig(root=root, source="csv")
    by_folder = DataConfig(root=root, manifest="manifest.csv")
    for listed in (list_training(by_table), list_training(by_folder)):
        assert len(listed.normal)
    table, folder = (list_training(settings) for settings in (by_table, by_folder))
    for part in ("normal", "unlabeled", "select", "calibrate"):
        names = [sorted(item.name for item in getattr(one, part)) for one in (table, folder)]
        assert names[0] == names[1]
    known, expected = (load_test(one) for one in (by_table, by_folder))
    np.testing.assert_array_equal(known.labels, expected.labels)
    np.testing.assert_array_equal(known.sublabels, expected.sublabels)
    np.testing.assert_array_equal(known.masks, expected.masks)
