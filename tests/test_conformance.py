"""Every architecture that exists keeps the contract."""

import pytest

from gan_ray import architectures
from tests.conformance import Conformance


class TestConformance(Conformance):
    @pytest.fixture(params=architectures.names())
    def name(self, request: pytest.FixtureRequest) -> str:
        return request.param
