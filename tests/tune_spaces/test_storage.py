"""Studies in databases: a real PostgreSQL server, which is really stopped, and SQLite files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from gan_ray.errors import ConfigError, StorageError
from tests.postgres import PASSWORD, Server
from tests.tune_spaces.test_record import claimed, searching
from tune_spaces.record import read
from tune_spaces.storage import JOURNAL, described, open_storage

ENCODED = quote(PASSWORD, safe="")
ROOT = Path(__file__).resolve().parents[2]


def drawn(out: str, storage: str, *, kill_after: int = 9) -> list[dict[str, float]]:
    """Draw four trials, the search begun anew after some."""
    settings, search = [], searching(claimed(out, storage=storage))
    for index in range(4):
        if index == kill_after:
            search = searching(claimed(out, storage=storage))
        settings.append(search.suggest(str(index))["settings"])
        search.on_trial_complete(str(index), {"failed": "for the test"})
    return settings


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/studies.db"
    server: Server = request.getfixturevalue("postgres")
    return server.url(ENCODED)


def test_a_study_is_the_same_in_every_storage_and_goes_on_in_it(storage, tmp_path) -> None:
    journal = drawn(str(tmp_path / "journal"), "")
    assert drawn(str(tmp_path / "database"), storage) == journal
    assert drawn(str(tmp_path / "broken"), storage, kill_after=2) == journal
    rows = read(str(tmp_path / "broken"))["trials"]
    assert [row["params"] for row in rows] == journal
    assert not (tmp_path / "broken" / JOURNAL).exists()


def test_another_storage_is_refused_in_both_directions(storage, tmp_path) -> None:
    claimed(str(tmp_path / "a"), storage=storage).write()
    with pytest.raises(ConfigError, match=r"storage \(.*:/.* -> studies.journal\)"):
        claimed(str(tmp_path / "a"))
    claimed(str(tmp_path / "b")).write()
    with pytest.raises(ConfigError, match=r"storage \(studies.journal -> "):
        claimed(str(tmp_path / "b"), storage=storage)


def test_no_password_is_written_or_said(postgres, tmp_path, capfd) -> None:
    drawn(str(tmp_path), postgres.url(ENCODED))
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert PASSWORD not in (text := file.read_text()), file
            assert ENCODED not in text, file
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["storage"] == f"postgresql+psycopg://127.0.0.1:{postgres.port}/studies"
    with pytest.raises(StorageError, match="password authentication failed") as wrong:
        open_storage(postgres.url("wrong%40word"), claimed(str(tmp_path / "x")).store)
    said = capfd.readouterr()
    for secret in (PASSWORD, ENCODED, "wrong@word", "wrong%40word"):
        assert secret not in f"{wrong.value}{said.out}{said.err}"
    assert wrong.value.__suppress_context__


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("not-an-address-s3cret", "no address of a database"),
        ("postgresq://u:s3cret@h/d", "no address of a database"),
        ("postgresql+psycopg://u:pa@s3cret@h/d", "no address of a database"),
        ("postgresql+psycopg://u:s3cret@h:s3cret/d", "no address of a database"),
        ("sqlite://", "keeps nothing"),
        ("sqlite:///:memory:", "keeps nothing"),
    ],
)
def test_an_address_that_cannot_be_is_refused_without_its_secret(address, message) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        described(address)
    assert "s3cret" not in str(refused.value)


def test_what_may_be_known_of_an_address_has_no_user_and_no_query() -> None:
    address = "postgresql+psycopg://me:secret@db.example:5433/studies?sslpassword=other"
    assert described(address) == "postgresql+psycopg://db.example:5433/studies"
    assert described("") == JOURNAL
    assert described("sqlite:///a/b.db") == f"sqlite:///{Path.cwd()}/a/b.db"


def test_a_driver_that_is_not_installed_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"gan-ray\[postgresql\]"):
        open_storage("postgresql+pg8000://u:p@h/d", claimed(str(tmp_path)).store)


def test_two_sweeps_share_a_database(storage, tmp_path) -> None:
    for name in ("one", "two"):
        drawn(str(tmp_path / name), storage)
    assert [len(read(str(tmp_path / name))["trials"]) for name in ("one", "two")] == [4, 4]


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_outlives_its_database(postgres, tmp_path) -> None:
    """The server dies while trials run: exit 5, no secret, and the same command goes on."""
    command = [sys.executable, "-m", "gan_ray", "sweep", "ganomaly", "--preset", "tiny",
               "--samples", "6", "--out", str(tmp_path / "out"), "--concurrent", "1",
               "--data.source", "digits", "--data.normal-class", "0", "--data.image-size", "16",
               "--train.images", "2000", "--train.report-every", "200", "--train.samples", "0",
               "--storage", postgres.url(ENCODED)]  # fmt: skip
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    try:
        heard = [next(line for line in running.stderr if line.startswith("trial 1 "))]
        postgres.kill()
        heard += running.stderr.readlines()
        assert running.wait() == 5, heard
        before = read(str(tmp_path / "out"))["trials"]
    finally:
        postgres.start()
    assert PASSWORD not in "".join(heard)
    assert ENCODED not in "".join(heard)
    assert "the same command goes on" in heard[-1]
    assert "Traceback" not in "".join(heard)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = read(str(tmp_path / "out"))["trials"]
    assert [row["number"] for row in rows] == list(range(6))
    assert {row["state"] for row in rows} <= {"complete", "pruned"}
    for row in before[:2]:
        assert rows[row["number"]]["value"] == row["value"]
