"""`data check` counts what is there, and finds the leaks that were planted."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gan_ray.__main__ import main
from gan_ray.config import DataConfig
from gan_ray.data.check import check
from tests.data.dicoms import twelve
from tests.data.trees import folders, noise, png, resized, scene, write_folder

TEST = "test/abnormal/p0-te000.png"


def report(
    tmp_path: Path,
    changes: dict[str, bytes] | None = None,
    labels: bool = False,
    masks: bool = True,
    **settings: object,
) -> dict[str, Any]:
    root = write_folder(tmp_path, {**folders(masks=masks), **(changes or {})})
    found = check(DataConfig(root=root, **settings), with_labels=labels)
    json.dumps(found)
    return found


def test_a_sound_set_is_counted_without_its_labels(tmp_path: Path):
    found = report(tmp_path, {"readme.txt": b""})
    assert found["ok"]
    assert found["errors"] == found["warnings"] == []
    assert {part: split["images"] for part, split in found["splits"].items()} == {
        "train/normal": 24, "train/unlabeled": 9, "test": 9,
    }  # fmt: skip
    assert "sublabels" not in json.dumps(found)
    assert found["splits"]["test"]["dtypes"] == {"uint8": 9}
    assert found["splits"]["test"]["sizes"] == {"12x12 grey": 9}
    assert found["streams"] == ["normal", "unlabeled"]
    assert found["ignored"] == ["readme.txt"]
    assert all(found["held_out"].values())


def test_labels_are_counted_when_asked(tmp_path: Path):
    splits = report(tmp_path, labels=True)["splits"]
    assert splits["test/normal"]["images"] == 5
    assert splits["test/abnormal"]["images"] == splits["test/abnormal"]["masks"] == 4
    assert splits["test/abnormal"]["sublabels"] == {"abnormal": 4}


def test_a_patient_in_training_and_test_is_an_error_that_names_him(tmp_path: Path):
    found = report(tmp_path, group_pattern=r"^(p0|.*)-")
    assert not found["ok"]
    assert any("both in train/normal and in test: 'p0', 'p1'" in text for text in found["errors"])


def test_a_patient_in_the_mix_too_is_a_warning_that_names_him(tmp_path: Path):
    found = report(tmp_path, group_pattern=r"^(p\d+-tr|p\d+-te\d+)")
    assert found["ok"]
    (warning,) = found["warnings"]
    assert "both in train/normal and in train/unlabeled: 'p0-tr', 'p1-tr'" in warning


def test_an_image_in_training_and_test_is_an_error_even_in_another_format(tmp_path: Path):
    found = report(tmp_path, {TEST: png(noise(3), "BMP")})
    assert not found["ok"]
    (error,) = found["errors"]
    assert "1 image(s) are both in training and in test" in error
    assert f"'train/normal/p3-tr003.png' = '{TEST}'" in error


def test_an_image_that_exists_twice_in_training_is_a_warning(tmp_path: Path):
    found = report(tmp_path, {"train/unlabeled/twin.png": png(noise(3))})
    assert found["ok"]
    assert (
        "exist more than once (keep one of each): 'train/normal/p3-tr003.png'"
        in found["warnings"][0]
    )


RESAVED = {
    "smaller": lambda: png(resized(scene(1), 40)),
    "larger": lambda: png(resized(scene(1), 240)),
    "squashed": lambda: png(np.asarray(Image.fromarray(scene(1)).resize((120, 64)))),
    "JPEG": lambda: png(scene(1), "JPEG", quality=60),
    "in colour": lambda: png(np.stack([scene(1)] * 3, axis=2)),
    "darker": lambda: png((scene(1) * 0.6).astype(np.uint8)),
    "16 bits": lambda: png(scene(1).astype(np.uint16) * 257),
}


@pytest.mark.parametrize("how", RESAVED)
def test_a_picture_in_training_and_test_is_an_error_however_it_was_saved(tmp_path: Path, how: str):
    found = report(tmp_path, {"train/normal/one.png": png(scene(1)), TEST: RESAVED[how]()})
    assert not found["ok"]
    (error,) = found["errors"]
    assert "1 test image(s) show the same picture as a training image" in error
    assert "'train/normal/one.png' (96x96) ~ " + repr(TEST) in error
    assert "Remove them from one side" in error


def test_a_copy_of_an_image_of_the_mix_in_test_is_an_error_too(tmp_path: Path):
    mix = {"train/unlabeled/one.png": png(scene(1)), TEST: png(resized(scene(1), 40))}
    (error,) = report(tmp_path, mix)["errors"]
    assert "'train/unlabeled/one.png' (96x96) ~ " in error


def test_a_copy_within_training_is_a_warning(tmp_path: Path):
    twins = {"train/normal/one.png": png(scene(1)), "train/unlabeled/two.png": png(scene(1, 40))}
    twins["train/unlabeled/two.png"] = png(resized(scene(1), 40))
    found = report(tmp_path, twins)
    assert found["ok"]
    (warning,) = found["warnings"]
    assert "'train/normal/one.png' (96x96) ~ 'train/unlabeled/two.png' (40x40)" in warning


def test_the_same_picture_in_another_light_is_a_warning(tmp_path: Path):
    lit = np.clip(scene(1) * 0.8 + 25 + np.linspace(-4, 4, 96), 0, 255).astype(np.uint8)
    found = report(tmp_path, {"train/normal/one.png": png(scene(1)), TEST: png(lit)})
    assert found["ok"], found["errors"]
    (warning,) = found["warnings"]
    assert "1 test image(s) look almost like a training image" in warning


def test_pictures_of_one_kind_that_differ_in_detail_are_a_warning(tmp_path: Path):
    smooth = resized(resized(scene(1), 8), 96).astype(int)
    alike = {
        name: png((smooth + resized(noise(number, 48) // 24, 96)).clip(0, 255).astype(np.uint8))
        for number, name in enumerate(("train/normal/one.png", TEST))
    }
    found = report(tmp_path, alike)
    assert found["ok"], found["errors"]
    (warning,) = found["warnings"]
    assert "1 test image(s) look almost like a training image" in warning
    assert repr(TEST) in warning


def test_pictures_that_differ_are_not_told(tmp_path: Path):
    blurred = {
        name: png(resized(resized(scene(number), 8), 96))
        for number, name in enumerate(("train/normal/one.png", TEST))
    }
    assert report(tmp_path, blurred)["warnings"] == []


LEAKS = {
    "patient": ({}, ["--data.group-pattern", r"^(p0|.*)-"], "'p0'"),
    "duplicate": ({TEST: png(noise(3))}, [], repr(TEST)),
    "resized duplicate": (
        {"train/normal/one.png": png(scene(1)), TEST: png(resized(scene(1), 50))},
        [],
        repr(TEST),
    ),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_the_command_exits_4_on_a_leak_and_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], leak: str
):
    files, settings, named = LEAKS[leak]
    sound, leaking = (
        write_folder(tmp_path / name, {**folders(), **some})
        for name, some in (("sound", {}), ("leaking", files))
    )
    assert main(["data", "check", sound]) == 0
    assert "\nusable" in capsys.readouterr().out
    assert main(["data", "check", leaking, *settings]) == 4
    told = capsys.readouterr().out.replace("\n", " ")
    assert named in told
    assert "not usable as it is" in told


@pytest.fixture(scope="module")
def films(data_dir: Path) -> dict[str, bytes]:
    """Real chest films of 40 patients: files of a small data set, whose names begin with these."""
    path = data_dir / "cxr_pediatric" / "cxr_pediatric.zip"
    if not path.is_file():
        pytest.skip("no cxr_pediatric")
    places = {"train/normal": 24, "train/unlabeled": 8, "test/normal": 4, "test/abnormal": 4}
    files: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as archive:
        for place, count in places.items():
            names = sorted(n for n in archive.namelist() if f"/{place}/" in n and n[-1] != "/")
            for name in names[:: len(names) // count][:count]:
                files[f"{place}/p{len(files):02}-film.png"] = archive.read(name)
    return files


def _shrunk(data: bytes) -> bytes:
    return png(resized(np.asarray(Image.open(io.BytesIO(data)).convert("L")), 80))


REAL_LEAKS = {
    "nothing": (lambda films: {}, 0, "usable"),
    "patient": (
        lambda films: {"test/normal/p03-again.png": films["test/normal/p32-film.png"]},
        4,
        "both in train/normal and in test: 'p03'",
    ),
    "duplicate": (
        lambda films: {"test/normal/p90-film.png": films["train/normal/p03-film.png"]},
        4,
        "'train/normal/p03-film.png' = 'test/normal/p90-film.png'",
    ),
    "resized duplicate": (
        lambda films: {"test/normal/p90-film.png": _shrunk(films["train/normal/p03-film.png"])},
        4,
        "'train/normal/p03-film.png' (128x128) ~ 'test/normal/p90-film.png' (80x80)",
    ),
    "patient in the mix": (
        lambda films: {
            "train/unlabeled/p03-again.png": films["train/unlabeled/p25-film.png"],
            "train/unlabeled/p25-film.png": films["train/unlabeled/p26-film.png"],
            "train/unlabeled/p26-film.png": films["train/unlabeled/p25-film.png"],
        },
        0,
        "both in train/normal and in train/unlabeled: 'p03'",
    ),
}


@pytest.mark.parametrize("leak", REAL_LEAKS)
def test_the_command_names_what_is_planted_among_real_films(
    tmp_path: Path, films: dict[str, bytes], capsys: pytest.CaptureFixture[str], leak: str
):
    plant, code, named = REAL_LEAKS[leak]
    root = write_folder(tmp_path, {**films, **plant(films)})
    assert main(["data", "check", root, "--data.group-pattern", r"^(p\d+)-"]) == code
    told = " ".join(capsys.readouterr().out.split())
    assert named in told
    assert ("error: " in told) == (code == 4)
    assert leak == "nothing" or "warning: " in told or code == 4


def lit(share: float, part: str, count: int) -> dict[str, bytes]:
    """Images that are brighter than others."""
    made = [
        (noise(1000 * int(share) + n) * 0.5 + 12 * share).astype(np.uint8) for n in range(count)
    ]
    return {f"{part}/lit{n}.png": png(pixels) for n, pixels in enumerate(made)}


def test_a_brightness_that_gives_the_label_away_is_told_with_labels_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    films = {**lit(1, "test/normal", 30), **lit(3, "test/abnormal", 30)}
    assert report(tmp_path, films, masks=False)["shortcuts"] == {}
    found = report(tmp_path, films, labels=True, masks=False)
    assert found["ok"]
    assert found["shortcuts"]["test"]["mean"] > 0.8
    assert found["shortcuts"]["test"]["image size"] == 0.5
    (warning,) = found["warnings"]
    assert "in test, abnormal images can be told from normal ones" in warning
    assert "mean 0." in warning
    assert "(higher in abnormal)" in warning
    assert "image size" not in warning
    assert main(["data", "check", str(tmp_path), "--with-labels"]) == 0
    told = capsys.readouterr().out.replace("\n", " ")
    assert "AUROC of trivial features on test: mean 0." in told


def test_shortcuts_of_validation_images_are_told_by_themselves(tmp_path: Path):
    films = {**lit(1, "val/normal", 30), **lit(3, "val/abnormal", 30)}
    found = report(tmp_path, films, labels=True)
    assert found["shortcuts"]["val"]["mean"] > 0.9
    assert any(warning.startswith("in val, ") for warning in found["warnings"])


def test_films_without_a_window_are_a_warning_and_those_with_one_are_not(tmp_path: Path):
    values = np.random.default_rng(0).integers(0, 4096, (12, 12))
    window = {"WindowCenter": 2048, "WindowWidth": 1000}
    films = {
        "train/normal/windowed.dcm": twelve(values, **window),
        "train/normal/bare.dcm": twelve(values + 1 - values // 4095),
        "train/normal/plain.png": png((values * 16).astype(np.uint16)),
    }
    warnings = [w for w in report(tmp_path, films)["warnings"] if "window" in w]
    assert len(warnings) == 1
    assert "1 DICOM or NIfTI image(s) state no window or range" in warnings[0]
    assert "'train/normal/bare.dcm'. Write one window" in warnings[0]


def test_every_unusable_file_is_listed(tmp_path: Path):
    bad = {f"train/normal/bad{n}.png": b"" for n in range(12)}
    found = report(tmp_path, {**bad, TEST: b"text"})
    assert not found["ok"]
    assert len(found["errors"]) == 13


def test_constant_images_and_mixed_depths_are_warnings(tmp_path: Path):
    flat = png(np.full((12, 12), 7, np.uint8))
    found = report(tmp_path, {TEST: flat, "train/normal/z.png": png(noise(1, 12, np.uint16))})
    assert found["ok"]
    assert any("1 image(s) have only one value" in text for text in found["warnings"])
    assert any("8 and of 16 bits are mixed" in text for text in found["warnings"])


def test_masks_that_do_not_fit_are_found_with_labels_only(tmp_path: Path):
    masks = {
        "test/masks/p0-te000.png": png(np.eye(9, dtype=np.uint8)),
        "test/masks/p1-te001.png": png(np.zeros((12, 12), np.uint8)),
    }
    assert report(tmp_path, masks)["ok"]
    found = report(tmp_path, masks, labels=True)
    assert any(
        "another size than their image: 'test/masks/p0-te000.png'" in e for e in found["errors"]
    )
    assert any("mark nothing: 'test/masks/p1-te001.png'" in text for text in found["warnings"])


def test_a_set_without_test_or_normals_says_so(tmp_path: Path):
    root = write_folder(tmp_path, folders({"train/unlabeled": 2}))
    for labels in (False, True):
        found = check(DataConfig(root=root), with_labels=labels)
        assert "no normal training images" in found["errors"][0]
        assert "no test images" in found["warnings"][0]


def test_embedded_digits_are_sound():
    found = check(DataConfig(source="digits", abnormal_class=0), with_labels=True)
    assert found["ok"]
    (warning,) = found["warnings"]  # a 0 has more ink outside of its middle
    assert "trivial features" in warning


REAL = {
    "cxr_pediatric": {"sharpness": 0.12, "file size": 0.13},
    "brain_lgg_flair": {"brightest 5 %": 0.71},
    "retina_odir": {"file size": 0.23},
    "defect_magnetic_tile": {},
    "defect_pcb": {},
}
"""Shortcuts on the test split, as its author measured them with code of his own."""


@pytest.mark.parametrize("name", REAL)
def test_real_sets_leak_nothing_into_their_test_split(data_dir: Path, name: str):
    path = data_dir / name / f"{name}.zip"
    if not path.is_file():
        pytest.skip(f"no {name}")
    found = check(DataConfig(root=str(path), manifest="manifest.csv"), with_labels=True)
    assert found["ok"], found["errors"]
    warned = any("both in train/normal and in train/unlabeled" in w for w in found["warnings"])
    assert warned == (name == "brain_lgg_flair")
    for feature, auroc in REAL[name].items():
        assert found["shortcuts"]["test"][feature] == pytest.approx(auroc, abs=0.02)
    told = [warning for warning in found["warnings"] if "trivial features" in warning]
    assert len(told) == bool(REAL[name])
    assert all(feature in told[0] for feature in REAL[name])


def test_products_that_were_photographed_twice_are_found_in_a_real_set(data_dir: Path):
    root = data_dir / "fashion_mnist_subset"
    if not root.is_dir():
        pytest.skip("no fashion_mnist_subset")
    found = check(DataConfig(root=str(root), source="idx", normal_class=1))
    (error,) = found["errors"]
    assert "2 test image(s) show the same picture as a training image" in error
