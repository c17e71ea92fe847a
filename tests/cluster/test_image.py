"""The steps of the Dockerfile, as far as they can be tried without building it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.cluster.manifests import CLUSTER, ROOT

PIN = re.compile(r"^([a-z0-9-]+)==(\S+)$", re.M)


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.M).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, rest = line.partition(" ")
        yield name, rest


STEPS = list(instructions(CLUSTER / "Dockerfile"))


def copied() -> list[tuple[str, str]]:
    """(source in the repository, destination in the image) of every COPY."""
    pairs = []
    for name, rest in STEPS:
        if name == "COPY":
            *sources, destination = rest.split()
            pairs += [(source, destination) for source in sources]
    return pairs


def pip_installs(text: str) -> list[list[str]]:
    """The words after `pip install`, one list per command, without the flags about output."""
    commands = re.findall(r"pip install (.+?)(?:&&|;|\n|$)", text.replace("\\\n", " "))
    quiet = {"--quiet", "--no-cache-dir", "--disable-pip-version-check"}
    return [[word for word in shlex.split(command) if word not in quiet] for command in commands]


def test_every_source_exists():
    assert len(copied()) >= 6
    assert not [source for source, _ in copied() if not (ROOT / source).exists()]


def test_the_context_lets_in_what_is_copied_and_nothing_else():
    lines = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == {s for s, _ in copied()}


def test_pip_installs_what_the_makefile_installs_but_for_the_tools_of_development():
    (ours,) = [words for words in pip_installs((ROOT / "Makefile").read_text()) if "-e" in words]
    *_, image = pip_installs("\n".join(rest for name, rest in STEPS if name == "RUN"))
    assert ours == ["-c", ".ci/constraints.txt", "-e", ".[dashboard,dev,onnx]"]
    assert image == ["-c", ".ci/constraints.txt", "-c", "cluster/constraints.txt",
                     ".[dashboard,postgresql]"]  # fmt: skip


def test_what_is_copied_is_enough_to_build_the_whole_package(tmp_path):
    context = tmp_path / "opt"
    for source, destination in copied():
        target = context / destination
        target = target / source if destination == "./" else target
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, target)
    words = "wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir wheels ."
    subprocess.run([sys.executable, "-m", "pip", *words.split()], cwd=context, check=True)
    (wheel,) = (context / "wheels").iterdir()
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in ("gan_ray", "tune_spaces", "serve")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert wanted <= inside
    assert (context / "jobs" / "sweep.sh").is_file()


def test_it_does_not_run_as_root():
    (user,) = [rest for name, rest in STEPS if name == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    uid = user.split(":")[0]
    assert any(f"useradd --uid {uid} " in rest for name, rest in STEPS if name == "RUN")
    last_root_step = max(i for i, (name, _) in enumerate(STEPS) if name in ("RUN", "COPY"))
    assert last_root_step < [name for name, _ in STEPS].index("USER")


def test_the_base_is_of_a_python_that_the_project_takes_to_the_last_figure():
    (base,) = [rest for name, rest in STEPS if name == "ARG" and rest.startswith("BASE=")]
    found = re.fullmatch(r"BASE=python:(3)\.(\d+)\.\d+-slim-\w+", base)
    assert found is not None
    assert (int(found[1]), int(found[2])) >= (3, 11)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("cuda", [None, "13.0"])
def test_the_build_ends_when_torch_is_not_for_the_device(device, cuda, tmp_path):
    (run,) = [rest for name, rest in STEPS if name == "RUN" and "torch.version" in rest]
    found = re.search(r'python -c "(.+?)"', run)
    assert found is not None
    program = found[1].replace("${DEVICE}", device)
    (tmp_path / "torch.py").write_text(
        "class version:\n    cuda = " + repr(cuda) + "\n__version__ = 'x'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True)
    assert (done.returncode == 0) == ((cuda is not None) == (device == "cuda"))


def pins() -> dict[str, str]:
    text = "".join((ROOT / folder / "constraints.txt").read_text() for folder in (".ci", "cluster"))
    return dict(PIN.findall(text))


def test_every_package_of_the_project_is_pinned_within_its_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = project["dependencies"] + extras["dashboard"] + extras["postgresql"]
    for requirement in map(Requirement, asked):
        assert pins()[requirement.name.lower()] in requirement.specifier, requirement


def test_no_package_is_pinned_twice():
    names = [name for folder in (".ci", "cluster")
             for name, _ in PIN.findall(
                 (ROOT / folder / "constraints.txt").read_text())]  # fmt: skip
    assert len(names) == len(set(names))


def test_no_file_of_the_folder_names_a_host_of_packages_or_images():
    hosts = re.compile(r"pypi\.|pythonhosted|pytorch\.org|docker\.io|ghcr\.io|quay\.io|gcr\.io")
    files = [path for path in CLUSTER.rglob("*") if path.is_file()]
    assert not [path for path in files if hosts.search(path.read_text())]
