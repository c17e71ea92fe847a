"""The page of thumbnails shows each part, asks for nothing, and names no file."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_ray.__main__ import main
from gan_ray.config import DataConfig
from gan_ray.errors import StorageError
from gan_ray.report.thumbnails import LONGEST, SHOWN, write_thumbnails
from tests.data.trees import folders, noise, png, write_folder
from tests.report.test_html import Page


def page(tmp_path: Path, *, with_labels: bool = False, **files: bytes) -> Page:
    changes = {name.replace("_", "/", 2) + ".png": content for name, content in files.items()}
    root = write_folder(tmp_path / "set", {**folders(masks=True), **changes})
    out = tmp_path / "out" / "page.html"
    return Page(write_thumbnails(DataConfig(root=root), out, with_labels=with_labels))


def test_each_part_shows_some_of_its_images_and_no_label(tmp_path: Path):
    seen = page(tmp_path)
    assert seen.count("img") == SHOWN + 9 + 9
    assert "24 images" in seen.text
    assert "abnormal test images are mixed" in seen.text
    assert "test/abnormal" not in seen.text


def test_labels_are_shown_when_asked(tmp_path: Path):
    seen = page(tmp_path, with_labels=True)
    assert seen.count("img") == SHOWN + 9 + 5 + 4
    assert "test/normal" in seen.text
    assert "test/abnormal" in seen.text


def test_the_page_asks_for_nothing_and_names_no_file(tmp_path: Path):
    seen = page(tmp_path)
    for tag, attributes in seen.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        if tag == "img":
            assert attributes["src"].startswith("data:image/png;base64,")
            assert attributes["alt"]
    text = (tmp_path / "out" / "page.html").read_text()
    assert "p0-" not in text
    assert str(tmp_path) not in text


def test_large_deep_and_broken_images_are_scaled_shifted_and_left_out(tmp_path: Path):
    large = png(np.full((300, 150), 0x7F00, np.uint16))
    seen = page(tmp_path, val_normal_large=large, val_normal_broken=b"none")
    shown = [a for tag, a in seen.tags if tag == "img" and "val/normal" in a["alt"]]
    (address,) = [a["src"] for a in shown]
    image = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    assert image.size == (LONGEST // 2, LONGEST)
    assert image.getextrema() == (0x7F, 0x7F)
    assert "150 x 300" in seen.text


def test_pixels_are_written_only_when_the_command_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = write_folder(tmp_path / "set", folders())
    assert main(["data", "check", root]) == 0
    assert not list(tmp_path.rglob("*.html"))
    assert main(["data", "check", root, "--thumbnails", str(tmp_path / "page.html")]) == 0
    assert "page.html" in capsys.readouterr().err
    assert "data:image/png" in (tmp_path / "page.html").read_text()


def test_a_page_that_cannot_be_written_is_told(tmp_path: Path):
    root = write_folder(tmp_path / "set", folders())
    (tmp_path / "file").write_bytes(png(noise(1)))
    with pytest.raises(StorageError, match="cannot write the page"):
        write_thumbnails(DataConfig(root=root), tmp_path / "file" / "page.html")
