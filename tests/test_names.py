"""Pseudonyms: one key, one name, one pseudonym; and no figure that depends on the key."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gan_ray import names
from gan_ray.__main__ import main
from gan_ray.config import DataConfig
from gan_ray.data.items import digest
from gan_ray.data.sources import load_training
from gan_ray.errors import ConfigError
from gan_ray.training.run import RunFolder
from tests.data.trees import COUNTS, noise, png, write_folder

OTHER = "ff" * 16


@pytest.fixture
def keyless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user without a key; gives the place where it will be."""
    monkeypatch.delenv(names.KEY)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "gan-ray" / "pseudonym.key"


def test_a_pseudonym_is_the_head_of_an_hmac():
    # printf 'Doe^Jane' | openssl dgst -sha256 -mac HMAC -macopt hexkey:$GAN_RAY_PSEUDONYM_KEY
    assert os.environ[names.KEY] == "00112233445566778899aabbccddeeff"
    assert names.pseudonym("Doe^Jane") == "c716eeced09e"
    assert names.pseudonym("a", names.OBJECT_DIGITS).startswith(names.pseudonym("a"))
    assert names.pseudonym("a") != names.pseudonym("b")


def test_another_key_gives_other_pseudonyms(monkeypatch):
    before = names.pseudonym("a"), names.key_name()
    monkeypatch.setenv(names.KEY, OTHER)
    assert not {*before} & {names.pseudonym("a"), names.key_name()}


def test_a_key_is_made_once_and_for_its_user_alone(keyless: Path):
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: names._kept.__wrapped__(None, None), range(8)))
    assert len(made) == 1
    assert stat.S_IMODE(keyless.stat().st_mode) == 0o600
    assert [file.name for file in keyless.parent.iterdir()] == ["pseudonym.key"]
    assert names.secret() == keyless.read_text().strip()
    assert len(bytes.fromhex(keyless.read_text())) == 32


def test_a_key_that_others_can_read_is_refused(keyless: Path):
    keyless.parent.mkdir(parents=True)
    keyless.write_text("00" * 32)
    keyless.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        names.pseudonym("a")


def test_a_home_that_takes_no_key_is_named(keyless: Path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", "/dev/null")
    with pytest.raises(ConfigError, match=r"/dev/null/gan-ray.*openssl rand -hex 32"):
        names.pseudonym("a")


@pytest.mark.parametrize(("key", "says"), [("secret word", "hexadecimal"), ("00" * 15, "15 bytes")])
def test_a_weak_key_is_refused_and_not_quoted(monkeypatch, key: str, says: str):
    monkeypatch.setenv(names.KEY, key)
    with pytest.raises(ConfigError, match=says) as caught:
        names.pseudonym("a")
    assert key not in str(caught.value)


def test_names_are_shown_for_the_block_that_asked(monkeypatch):
    monkeypatch.delenv(names.SHOW)
    hidden = f"#{names.pseudonym('a')}"
    assert (names.shown("a"), names.shown(names.Public("a"))) == (hidden, "'a'")
    with names.as_before():
        names.show()
        assert names.shown("a") == "'a'"
        assert names.environment()[names.SHOW] == "1"
    assert names.shown("a") == hidden
    assert names.environment()[names.SHOW] == "0"
    assert names.hint(f"{hidden} is empty")
    assert not names.hint("#12 and 'a' are not meant")


def test_no_figure_and_no_fingerprint_depends_on_the_key(tmp_path: Path, monkeypatch, capsys):
    parts = [part for part, count in COUNTS.items() for _ in range(count)]
    files = {
        f"{part}/p{number // 2 if part == 'train/normal' else number:02}-{number}.png": png(
            noise(number, 16)
        )
        for number, part in enumerate(parts)
    }
    root = write_folder(tmp_path / "data", files)
    pattern = r"^(p\d+)"
    seen = []
    for key in (os.environ[names.KEY], OTHER):
        monkeypatch.setenv(names.KEY, key)
        out = tmp_path / key
        data = ["--data.root", root, "--data.group-pattern", pattern, "--data.image-size", "16"]
        short = ["--preset", "tiny", "--train.images", "64", "--train.report-every", "64"]
        main(["train", "brainomaly", *data, *short, "--local", "--out", str(out / "run")])
        main(["export", str(out / "run"), "-o", str(out / "bundle"), "--fpr", "0.5"])
        main(["evaluate", str(out / "bundle"), "--out", str(out / "evaluation")])
        found = json.loads((out / "evaluation" / "evaluation.json").read_text())
        (model,) = found["models"]
        ids = model["scores"].pop("ids"), model["scores"].pop("groups")
        cases = [case.pop("id") for case in model["cases"]]
        del model["images_per_second"]
        loaded = load_training(DataConfig(root=root, group_pattern=pattern, image_size=16))
        rows = RunFolder(out / "run").metrics()
        figures = [{k: v for k, v in row.items() if "/" in k} for row in rows]
        seen.append((found, figures, loaded.fingerprint, loaded.select.groups.tolist()))
        seen.append((ids, cases))
    assert seen[0] == seen[2]
    assert seen[1] != seen[3]
    assert any("loss" in name or "val/" in name for name in seen[0][1][0])


def test_the_table_of_names_joins_scores_and_evaluations_to_files(tmp_path: Path, capsys):
    root = write_folder(
        tmp_path / "data",
        {f"set/train/normal/p{n}.png": png(noise(n)) for n in range(2)} | {"set/notes.txt": b"-"},
    )
    assert main(["names", root, "--contents", "--group-pattern", r"(p\d)"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    by_name = {row["name"]: row for row in rows}
    assert list(by_name) == [f"{top}train/normal/p{n}.png" for top in ("set/", "") for n in (0, 1)]
    row = by_name["train/normal/p1.png"]
    assert row["id"].startswith(names.pseudonym("train/normal/p1.png"))
    assert row["patient"] == names.pseudonym(digest(b"p1"))
    assert row["image"] == names.pseudonym(digest(png(noise(1))))
    assert by_name["set/train/normal/p1.png"]["image"] == ""


def test_workers_are_handed_the_key_and_know_no_other(keyless: Path, tmp_path: Path):
    code = """if True:
        import sys
        from gan_ray import names
        names.use(sys.argv[1])
        print(names.pseudonym("a"), names.are_shown())
    """
    env = os.environ | names.environment() | {"XDG_CONFIG_HOME": str(tmp_path / "elsewhere")}
    words = [sys.executable, "-c", code, names.secret()]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [names.pseudonym("a"), "True"]
    assert not (tmp_path / "elsewhere").exists()
    assert np.unique([names.pseudonym(str(n)) for n in range(1000)]).size == 1000
