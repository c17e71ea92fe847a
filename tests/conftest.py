"""What all tests share: the environment, the real data, one local Ray cluster."""

from __future__ import annotations

import os
from pathlib import Path

# Before anything imports Ray or torch: the cluster of the tests is local and open on loopback.
os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_DEDUP_LOGS="0",
    RAY_metrics_report_interval_ms="500",
    RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.2",
    RAY_TRAIN_ENABLE_PREEMPTION_WATCHER="0",
    RAY_TRAIN_METRICS_ENABLED="0",
    RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH="serve.proxy:middlewares",  # as `launch` sets it
    OMP_NUM_THREADS="1",
    MPLBACKEND="Agg",
    NO_COLOR="1",
    # Tests read messages for the names in them; tests/privacy runs without, as users do.
    GAN_RAY_SHOW_NAMES="1",
    GAN_RAY_PSEUDONYM_KEY="00112233445566778899aabbccddeeff",
)

import hypothesis
import pytest

from tests.postgres import postgres  # noqa: F401
from tests.s3_server import s3, s3_server  # noqa: F401

# Property tests share a busy machine: an example may take its time, and draws repeat.
hypothesis.settings.register_profile("shared", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("shared")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Root of the real data sets; tests that want them skip where there are none."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("GAN_RAY_TEST_DATA", default))
    if not root.is_dir():
        pytest.skip("no real data sets here: set GAN_RAY_TEST_DATA to their folder")
    return root


@pytest.fixture(scope="session")
def ray_cluster(s3_server):  # noqa: F811
    """One local cluster for the whole session; eight logical CPUs, so that nothing can starve.

    Its processes inherit the way to the S3 server, as those of `cluster.connect` are told it.
    """
    import ray

    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        _node_ip_address="127.0.0.1",
        logging_level="ERROR",
        log_to_driver=False,
    )
    yield
    ray.shutdown()
