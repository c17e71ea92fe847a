"""A sweep as a job from a machine that is no part of the cluster, on nodes that ask for a token."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.nodes import FAST, Nodes, finish, ray_nodes
from tests.s3_server import Bucket, access

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SWEEP = (
    "-m", "gan_ray", "sweep", "ganomaly", "--preset", "tiny", "--study", "weights", "--samples",
    "2", "--data.source", "digits", "--data.normal-class", "1", "--data.image-size", "16",
    "--train.images", "640", "--train.report-every", "320", "--train.samples", "0",
)  # fmt: skip


@pytest.fixture(scope="module")
def nodes(machines: None) -> Iterator[Nodes]:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with ray_nodes(2, dashboard=True, environment={**FAST, **token}) as running:
        yield running


@pytest.fixture
def job(nodes: Nodes, bucket: Bucket, tmp_path: Path) -> list[str]:
    """The options of a job: an empty working directory and the way to the bucket."""
    (tmp_path / "code").mkdir()
    variables = tmp_path / "job.env"
    variables.write_text("".join(f"{k}={v}\n" for k, v in access(bucket.endpoint).items()))
    return ["--address", f"http://{nodes.head.address}:8265",
            "--working-dir", str(tmp_path / "code"), "--env-file", str(variables)]  # fmt: skip


def test_a_sweep_is_followed_to_its_end_from_elsewhere(nodes: Nodes, bucket: Bucket, job):
    out = ("--out", f"{bucket.uri}/sweep")
    command = ["-m", "gan_ray", "submit", *job, "--", sys.executable, *SWEEP, *out]
    submitted = nodes.python(*command, on=nodes.outside, log="submit")
    assert finish(submitted, 280) == 0, nodes.said("submit")
    assert "trial 1  ganomaly" in nodes.said("submit")
    # The same by Ray's own client, for one trial more.
    environment = json.dumps({"env_vars": access(bucket.endpoint)})
    ray = ["-m", "ray.scripts.scripts", "job", "submit", "--runtime-env-json", environment, "--",
           sys.executable, *SWEEP, "--samples", "3", *out]  # fmt: skip
    plain = nodes.python(*ray, on=nodes.outside, log="plain", RAY_API_SERVER_ADDRESS=job[1])
    assert finish(plain, 280) == 0, nodes.said("plain")
    assert "trial 2  ganomaly" in nodes.said("plain")


def test_a_stranger_is_refused(nodes: Nodes, job):
    command = ["-m", "gan_ray", "submit", *job, "--", "true"]
    stranger = nodes.python(
        *command, on=nodes.outside, log="stranger", RAY_AUTH_TOKEN=secrets.token_hex(32)
    )
    assert finish(stranger, 100) == 5, nodes.said("stranger")
    assert "RAY_AUTH_TOKEN" in nodes.said("stranger")
    assert "Traceback" not in nodes.said("stranger")
