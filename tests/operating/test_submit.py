"""`gan-ray submit` against a real Jobs server that asks for a token."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gan_ray.errors import CheckFailed, ClusterError, ConfigError
from gan_ray.submit import exit_code, pack, read_variables
from tests.operating.conftest import running


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A small working directory with data, runs and what Git ignores."""
    folder = tmp_path / "code"
    for name in ("job.py", "package/data/reader.py", "data/film.png", "runs/1/log.txt", "x.tmp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("import os, sys; print(os.environ['COLOUR'], sys.argv[1:])\n")
    (folder / ".gitignore").write_text("*.tmp\n")
    return folder


def submit(*arguments: object, code: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gan_ray", "submit", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_the_package_holds_code_and_neither_data_nor_runs(code):
    done = submit("--working-dir", code, "--dry-run", "--json", "--", "true", code=0)
    names = {name for name, _ in json.loads(done.stdout)["files"]}
    assert names == {".gitignore", "job.py", "package/data/reader.py"}
    assert "job.py" in done.stderr


def test_the_package_is_as_large_as_what_ray_makes_of_it(code, tmp_path):
    from ray._private.runtime_env.packaging import create_package

    archive = tmp_path / "made.zip"
    create_package(str(code), archive, include_gitignore=True, excludes=["/data", "/runs"])
    assert pack(code, ["/data", "/runs"]).size == archive.stat().st_size


def test_a_package_above_rays_limit_is_refused_with_its_largest_files(code):
    limit = pack(code, []).limit
    for number in range(12):
        with (code / f"weights-{number:02}.bin").open("wb") as file:
            file.truncate(limit // 12 + number)
    done = submit("--working-dir", code, "--", "true", code=2)
    shown = [line.split()[-1] for line in done.stderr.splitlines() if "KiB" in line]
    assert shown == [f"weights-{number:02}.bin" for number in range(11, 1, -1)]
    assert "--exclude" in done.stderr
    submit("--working-dir", code, "--exclude", "*.bin", "--dry-run", "--", "true", code=0)


def test_variables_come_from_a_file_and_are_never_shown(tmp_path):
    path = tmp_path / "variables"
    path.write_text("# a comment\n\nexport COLOUR='deep red'\nTOKEN=a=b\n")
    assert read_variables(path) == {"COLOUR": "deep red", "TOKEN": "a=b"}
    path.write_text("COLOUR=red\nhunter2\n")
    with pytest.raises(ConfigError, match="line 2") as refused:
        read_variables(path)
    assert "hunter2" not in str(refused.value)


def test_a_job_that_did_not_run_to_its_end_is_an_error():
    job = {"job": "j", "exit_code": None}
    assert exit_code({**job, "status": "FAILED", "exit_code": -9}, "") == 137
    with pytest.raises(CheckFailed, match="stopped"):
        exit_code({**job, "status": "STOPPED"}, "")
    with pytest.raises(ClusterError, match="no such package"):
        exit_code({**job, "status": "FAILED"}, "no such package.")


def test_a_command_or_a_job_is_needed_and_a_server(code):
    assert "--status" in submit(code=2).stderr
    assert "--status" in submit("--status", "j", "--", "true", code=2).stderr
    nobody = ["--address", "http://127.0.0.1:9", "--working-dir", code]
    assert "http://127.0.0.1:9" in submit(*nobody, "--", "true", code=5).stderr


def test_a_job_gets_code_and_variables_and_gives_log_and_exit_code(protected, code, tmp_path):
    variables = tmp_path / "variables"
    variables.write_text("COLOUR=deep red\n")
    there = ["submit", "--address", protected.dashboard]
    python = "import runpy, sys; runpy.run_path('job.py'); sys.exit(7)"
    done = protected.run(*there, "--working-dir", code, "--env-file", variables, "--",
                         sys.executable, "-c", python, "a b")  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert "deep red ['a b']" in done.stdout
    assert "deep red" not in done.stderr
    job = next(line for line in done.stderr.splitlines() if line.startswith("job: "))[5:]
    told = protected.run(*there, "--status", job, "--json")
    assert json.loads(told.stdout) == {"job": job, "status": "FAILED", "exit_code": 7}
    again = protected.run(*there, "--logs", job)
    assert again.returncode == 7
    assert "deep red" in again.stdout


def test_what_a_job_connects_to_knows_the_variables_it_was_given(protected, code, tmp_path):
    variables = tmp_path / "variables"
    variables.write_text("AWS_REGION=eu-north-7\n")
    (code / "job.py").write_text(
        "import os, ray; from gan_ray.cluster import connect; connect()\n"
        "print(ray.get(ray.remote(os.getenv).remote('AWS_REGION')))\n"
    )
    done = protected.run("submit", "--address", protected.dashboard, "--working-dir", code,
                         "--env-file", variables, "--", sys.executable, "job.py")  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert "eu-north-7" in done.stdout


@pytest.mark.slow
def test_a_job_outlives_who_follows_it_and_can_be_stopped(protected, code):
    there = ["submit", "--address", protected.dashboard]
    command = [sys.executable, "-m", "gan_ray", *there, "--working-dir", str(code), "--",
               sys.executable, "-uc", "import time; print('begun'); time.sleep(300)"]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=protected.environment,
    )  # fmt: skip
    assert any(line == "begun\n" for line in process.stdout)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the job goes on" in said
    job = next(line for line in said.splitlines() if line.startswith("job: "))[5:]
    assert protected.run(*there, "--status", job).stdout == "RUNNING\n"
    assert protected.run(*there, "--stop", job).stdout == "STOPPED\n"
    assert protected.run(*there, "--logs", job).returncode == 1


@pytest.mark.slow
def test_a_cluster_without_token_is_refused_unless_told_otherwise(outward, code):
    with running(host="0.0.0.0", ip=outward, nodes=1) as cluster:
        there = ["submit", "--address", cluster.dashboard, "--working-dir", code]
        refused = cluster.run(*there, "--", "true")
        taken = cluster.run(*there, "--allow-open", "--", "true")
    assert refused.returncode == 5
    assert "--allow-open" in refused.stderr
    assert taken.returncode == 0, taken.stderr


def test_without_the_token_nothing_is_submitted(protected, code):
    done = protected.run("submit", "--address", protected.dashboard, "--working-dir", code,
                         "--", "true", RAY_AUTH_TOKEN="0" * 64)  # fmt: skip
    assert done.returncode == 5
    assert "RAY_AUTH_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr
