"""What the tests with nodes need: leave to make machines, and a bucket on one that is no node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.machines import unavailable
from tests.cluster.nodes import Nodes
from tests.s3_server import Bucket, make_bucket, serving


@pytest.fixture(scope="session")
def machines() -> None:
    """Skip where there can be no machines."""
    if reason := unavailable():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def bucket(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """A bucket beside the module's `nodes`."""
    log = tmp_path_factory.mktemp("s3") / "server.log"
    with nodes.outside.inside(), serving(nodes.outside.address, log) as endpoint:
        yield make_bucket(endpoint)
