"""What Ray's processes write names nobody either, and nothing holds the key of the pseudonyms."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gan_ray import names
from gan_ray.artifacts.bundle import read_verified
from gan_ray.scoring.batch import read_rows
from gan_ray.storage import open_store
from tests.data.trees import write_folder
from tests.privacy.canaries import CANARIES, broken, film, films, found_in, leaks
from tests.serve.conftest import write_bundle

pytestmark = pytest.mark.slow

TOKEN = "0123456789abcdef-token"


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray keeps what its processes log; the path of a socket must be short."""
    with tempfile.TemporaryDirectory(prefix="gr", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.delenv(names.SHOW)
        monkeypatch.delenv("RAY_AUTH_MODE")
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
        yield Path(folder)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "film")


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "gan_ray", *map(str, words)]


def run(*words: object, code: int = 0) -> str:
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=280)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def logs(folder: Path) -> str:
    """All that Ray's processes wrote; the key of the pseudonyms is not in it."""
    text = "".join(path.read_text("latin-1") for path in folder.rglob("*") if path.is_file())
    assert "raylet" in text
    assert os.environ[names.KEY] not in text
    return text


def test_training_under_ray_names_nobody(ray_folder: Path, tmp_path: Path):
    settings = ["--preset", "tiny", "--data.image-size", "16", "--train.images", "256",
                "--train.report-every", "128", "--train.workers", "2"]  # fmt: skip
    root, out = write_folder(tmp_path / "data", films()), tmp_path / "out"
    told = run("train", "brainomaly", *settings, "--data.root", root, "--out", out)
    assert found_in(told + logs(ray_folder)) == []
    assert leaks([out]) == {}
    write_folder(Path(root), broken())
    other = ["--data.root", root, "--out", tmp_path / "other"]
    told = run("train", "brainomaly", *settings, *other, code=4)
    assert found_in(told + logs(ray_folder)) == []
    everything = "".join(path.read_text("latin-1") for path in out.rglob("*") if path.is_file())
    assert os.environ[names.KEY] not in told + everything


def test_scoring_a_bucket_names_nobody(ray_folder: Path, s3, bundle: Path, tmp_path: Path):
    for source in (str(tmp_path / "in"), s3.uri + "/in"):
        store, sink = open_store(source), tmp_path / source[:2].strip("/")
        for name, content in (films() | broken()).items():
            store.put(name, content)
        told = run("score", bundle, source, sink)
        assert found_in(told + logs(ray_folder)) == []
        assert leaks([sink]) == {}
        assert read_rows(str(sink)).num_rows == len(films() | broken())
        assert "resumed" in run("score", bundle, source, sink)
        assert "pseudonym_key" in run_with_another_key("score", bundle, source, sink)


def run_with_another_key(*words: object) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(names.KEY, "ff" * 16)
        return run(*words, code=2)


def test_serving_names_nobody(ray_folder: Path, bundle: Path, tmp_path: Path):
    root = write_folder(tmp_path / "in", films() | broken())
    words = command("serve", bundle, "--port", "0", "--allow", root)
    server = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        line = next(text for text in iter(server.stderr.readline, "") if "http://" in text)
        url = line.partition(" at ")[2].split()[0]
        manifest, _ = read_verified(bundle)
        path = f"{url}/v2/models/{manifest.name}/score"
        for name, content in {**broken(), "sound": film(0)}.items():
            answer = httpx.post(path, files=[("image", (name, content))], timeout=60)
            assert found_in(answer.text) == []
        uris = [f"{root}/{name}" for name in broken()] + [f"{root}/{CANARIES[0]}.dcm"]
        assert httpx.post(path, json={"uris": uris}, timeout=60).status_code == 207
        outside = httpx.post(path, json={"uris": [f"/{CANARIES[0]}"]}, timeout=60)
        assert outside.status_code == 403
        time.sleep(1)  # logs are written soon after
    finally:
        server.terminate()
        told = server.communicate(timeout=60)[1]
    assert found_in(line + told + logs(ray_folder)) == []
