"""The named data sets of the papers, on small trees of the shape that each has."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from gan_ray.__main__ import main
from gan_ray.config import DataConfig
from gan_ray.data.check import check
from gan_ray.data.recipes import RECIPES, recipe_settings
from gan_ray.data.sources import load_test, load_training
from gan_ray.errors import ConfigError
from gan_ray.experiment import make
from tests.data import test_cifar10, test_data_json, test_svhn
from tests.data.test_idx import encode
from tests.data.trees import noise, png, write_folder, write_zip

MASK = png(np.eye(12, dtype=np.uint8) * 255)


def mnist() -> dict[str, bytes]:
    files = {}
    for prefix in ("train", "t10k"):
        images = np.random.default_rng(len(prefix)).integers(0, 256, (100, 28, 28), np.uint8)
        files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(encode(images))
        classes = np.arange(100, dtype=np.uint8) % 10
        files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(encode(classes))
    return files


def pictures(counts: Mapping[str, int], name: str = "{:03d}.png") -> dict[str, bytes]:
    """Images by the folder and the number of each; numbers go on from folder to folder."""
    files: dict[str, bytes] = {}
    for folder, count in counts.items():
        for _ in range(count):
            number = len(files)
            files[f"{folder}/{name.format(number)}"] = png(noise(number))
    return files


def mvtec() -> dict[str, bytes]:
    files = pictures({"train/good": 12, "test/good": 3, "test/broken_large": 2, "test/dirt": 2})
    masks = {
        name.replace("test", "ground_truth").replace(".png", "_mask.png"): MASK
        for name in files
        if name.startswith(("test/broken", "test/dirt"))
    }
    return {**files, **masks, "license.txt": b"x", "readme.txt": b"x"}


def lists() -> dict[str, bytes]:
    return test_data_json.files(test_data_json.lists((12, 8, 9, 3, 3)))


def chestxray14() -> dict[str, bytes]:
    parts = {"train,normal": 12, "unlabeled,": 5, "test,normal": 3, "test,abnormal": 3}
    files, rows = {}, ["file,split,label,sublabel"]
    for part, count in parts.items():
        for _ in range(count):
            number = len(files)
            name = f"images_001/images/{number // 2 + 1000 * len(part):08d}_{number % 2:03d}.png"
            files[name] = png(noise(number))
            rows.append(f"{name},{part},{'Mass' if 'abnormal' in part else ''}")
    return {**files, "manifest.csv": "\n".join(rows).encode()}


def brainomaly(name: str) -> dict[str, bytes]:
    counts = {"train/neg": 12, "train/neg_mixed": 3, "train/pos": 2, "test/neg": 3, "test/pos": 3}
    return pictures(counts, name)


def brats() -> dict[str, bytes]:
    counts = {"train": 12, "test/normal": 3, "test/tumor": 3}
    files = pictures(counts, "BraTS2021_{:05d}_flair_77.png")
    masks = {
        name.replace("tumor", "annotation").replace("flair", "seg"): MASK
        for name in files
        if "tumor" in name
    }
    return {**files, **masks}


TREES = {
    "mnist": (mnist, {"normal_class": 3}),
    "fashion_mnist": (mnist, {"abnormal_class": 3}),
    "cifar10": (lambda: test_cifar10.batches(), {"normal_class": 3}),
    "svhn": (test_svhn.files, {"abnormal_class": 3}),
    "mvtec_ad": (mvtec, {}),
    "rsna": (lists, {}),
    "vindr_cxr": (lists, {}),
    "lag": (lists, {}),
    "brain_tumor": (lists, {}),
    "chestxray14": (chestxray14, {}),
    "covidx": (lambda: brainomaly("{:03d}.png"), {}),
    "adni": (lambda: brainomaly("ADNI_002_S_{:04d}_88.png"), {}),
    "ixi": (lambda: brainomaly("IXI{:03d}-Guys-0828_88.png"), {}),
    "brats": (brats, {}),
}
MASKED = {"mvtec_ad", "brats"}
WITHOUT_MIX = {"mvtec_ad", "brats"}


def test_every_recipe_has_a_tree_and_a_row_in_the_docs():
    assert set(TREES) == set(RECIPES)
    page = Path(__file__).parents[2] / "docs" / "datasets.md"
    rows = [line.split("|")[1].strip() for line in page.read_text().splitlines() if "|" in line]
    assert {f"`{name}`" for name in RECIPES} <= set(rows)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("place", ["directory", "zip"])
def test_a_set_of_its_shape_is_trained_and_tested_on(tmp_path: Path, name: str, place: str):
    build, more = TREES[name]
    files = build()
    root = (
        write_folder(tmp_path / "set", files)
        if place == "directory"
        else write_zip(tmp_path / "set.zip", files, top=name)
    )
    changes = {"data": {"recipe": name, "root": root, "image_size": 8, **more}}
    data = make("ganomaly", changes=changes).data
    trained, test = load_training(data), load_test(data)
    assert len(trained.normal)
    assert trained.normal.images.shape[1:] == (RECIPES[name]["channels"], 8, 8)
    assert (trained.unlabeled is None) == (name in WITHOUT_MIX)
    assert {0, 1} == set(test.labels.tolist())
    assert (test.masks is not None) == (name in MASKED)
    if test.masks is not None:
        assert test.masks.any(axis=(1, 2)).tolist() == (test.labels == 1).tolist()
    report = check(data, with_labels=True)
    assert report["errors"] == []
    assert all(name.endswith(".txt") for name in report["ignored"])
    has_patients = "group_pattern" in RECIPES[name]
    assert report["grouped_by"] == ("pattern" if has_patients else "file")


def test_the_lines_in_the_docs_write_the_table_of_chestxray14(tmp_path: Path):
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    lines = page.partition("```python\n")[2].partition("```")[0]
    counts = "10_000, 5_000, 3_195"
    assert counts in lines
    files, table = {}, ["Image Index,Finding Labels,Patient ID"]
    for number in range(60):
        name = f"{number // 2:08d}_{number % 2:03d}.png"
        finding = ("No Finding", "No Finding", "Mass", "Mass|Nodule")[number % 4]
        files[f"images_00{number % 2}/images/{name}"] = png(noise(number))
        table.append(f"{name},{finding},{number // 2}")
    files["Data_Entry_2017.csv"] = "\n".join(table).encode()
    files["test_list.txt"] = "\n".join(row.partition(",")[0] for row in table[-12:]).encode()
    root = write_folder(tmp_path, files)
    small = lines.replace(counts, "12, 8, 5")
    subprocess.run([sys.executable, "-c", small], cwd=root, check=True)
    data = make("ganomaly", changes={"data": {"recipe": "chestxray14", "root": root}}).data
    splits = check(data, with_labels=True)["splits"]
    assert {part: found["images"] for part, found in splits.items()} == {
        "train/normal": 12,
        "train/unlabeled": 13,
        "test/normal": 6,
        "test/abnormal": 3,
    }
    assert splits["test/abnormal"]["sublabels"] == {"Mass": 3}


def test_the_mix_of_a_brainomaly_tree_is_its_pos_and_neg_mixed(tmp_path: Path):
    root = write_folder(tmp_path, brainomaly("{:03d}.png"))
    trained = load_training(DataConfig(root=root, image_size=8))
    assert trained.unlabeled is not None
    assert len(trained.unlabeled) == 5
    assert len(trained.normal) + len(trained.select) + len(trained.calibrate) == 12


def test_files_straight_below_train_are_normal_only_where_no_folder_says_more(tmp_path: Path):
    root = write_folder(tmp_path, {**brats(), "train/good/a.png": png(noise(99))})
    assert any("'train/BraTS" in error for error in errors(root))


def errors(root: str) -> list[str]:
    try:
        return list(check(DataConfig(root=root))["errors"])
    except ValueError as error:
        return [str(error)]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_settings_that_exist_and_neither_root_nor_class(name: str):
    settings = recipe_settings(name)
    data = DataConfig(**settings)
    assert data.recipe == name
    assert (data.root, data.normal_class, data.abnormal_class) == ("", None, None)


def test_explicit_settings_win_over_the_recipe_and_it_over_the_preset():
    changes = {"data": {"recipe": "mvtec_ad", "channels": 1}}
    data = make("ganomaly", preset="tiny", changes=changes).data
    assert (data.recipe, data.channels, data.image_size) == ("mvtec_ad", 1, 128)
    assert make("ganomaly", preset="tiny").data.image_size == 16


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown recipe 'rnsa'.*Did you mean 'rsna'"):
        make("ganomaly", changes={"data": {"recipe": "rnsa"}})


@pytest.mark.parametrize("words", [["--data.recipe", "svhn"], ["--data.recipe=svhn"]])
def test_the_command_line_lays_what_is_given_over_the_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
):
    root = write_folder(tmp_path, test_svhn.files())
    given = [*words, "--data.root", root, "--data.normal-class", "2", "--data.channels", "1"]
    arguments = ["train", "ganomaly", "--preset", "tiny", "--dry-run", *given]
    assert main(arguments) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert (data["recipe"], data["source"], data["image_size"]) == ("svhn", "svhn", 32)
    assert (data["normal_class"], data["channels"]) == (2, 1)


def test_a_recipe_is_checked_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = write_folder(tmp_path, brats())
    assert main(["data", "check", root, "--data.recipe", "brats", "--json", "--with-labels"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["splits"]["test/abnormal"]["sublabels"] == {"tumor": 3}
    assert main(["data", "check", root, "--data.recipe", "bratz"]) == 2
    assert "Did you mean 'brats'" in capsys.readouterr().err
