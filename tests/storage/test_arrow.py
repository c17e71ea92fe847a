"""The file systems that Ray keeps checkpoints on: the same places as the stores."""

import os
import pickle
import tempfile
from pathlib import Path

import pytest

from gan_ray.errors import StorageError
from gan_ray.storage import open_store
from gan_ray.storage.arrow import arrow_filesystem


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "runs")
    return request.getfixturevalue("s3").uri + "/runs"


def test_arrow_and_the_store_see_the_same_objects(place: str):
    system, path = arrow_filesystem(place)
    system.create_dir(f"{path}/a", recursive=True)
    with system.open_output_stream(f"{path}/a/b") as stream:
        stream.write(b"by arrow")
    store = open_store(place)
    assert [entry.key for entry in store.list()] == ["a/b"]
    assert store.get("a/b") == b"by arrow"
    store.put("a/c", b"by the store")
    with system.open_input_stream(f"{path}/a/c") as stream:
        assert stream.read() == b"by the store"


def test_a_file_system_travels_without_credentials(place: str):
    system, path = arrow_filesystem(place)
    pickled = pickle.dumps(system)
    assert os.environ.get("AWS_SECRET_ACCESS_KEY", "canary-secret").encode() not in pickled
    open_store(place).put("a", b"1")
    assert pickle.loads(pickled).get_file_info(f"{path}/a").size == 1


def test_an_endpoint_with_a_path_is_refused(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000/minio")
    with pytest.raises(StorageError, match="has a path"):
        arrow_filesystem("s3://bucket/x")


@pytest.mark.ray
def test_ray_train_keeps_its_checkpoints_on_s3(ray_cluster, s3):
    from ray import train
    from ray.train import LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from gan_ray.storage import environment

    def report_twice(config: dict) -> None:
        for step in range(2):
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "state").write_text(f"{config['word']} {step}")
                train.report({"step": step}, checkpoint=train.Checkpoint.from_directory(folder))

    place = s3.uri + "/runs"
    system, path = arrow_filesystem(place)
    result = TorchTrainer(
        report_twice,
        train_loop_config={"word": "weights"},
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(
            name="run",
            storage_path=path,
            storage_filesystem=system,
            worker_runtime_env={"env_vars": environment()},
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    ).fit()
    kept = [entry.key for entry in open_store(place).list("run/") if entry.key.endswith("/state")]
    assert len(kept) == 2
    assert open_store(place).get(kept[-1]) == b"weights 1"
    assert result.checkpoint.path == f"{path}/{kept[-1].removesuffix('/state')}"
