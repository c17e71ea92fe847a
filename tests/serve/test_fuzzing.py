"""Mutated requests get answers, and the fuzzer would notice if they did not."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.fuzzing import request, run, seeds


def test_mutated_requests_find_no_fault(endpoint):
    found = run(str(endpoint().base_url), requests=1_000, clients=4, seed=1)
    assert found["faults"] == []
    assert sum(found["answers"].values()) == 1_000
    told = {answer.partition(" ")[2] for answer in found["answers"]}
    assert {"MALFORMED", "UNKNOWN_CONTENT_TYPE", "NOT_FOUND", "URI_NOT_ALLOWED"} <= told
    assert "200" in found["answers"]


def test_a_request_follows_from_its_number(endpoint):
    sound = seeds(str(endpoint().base_url))
    assert {sent.verb for sent in sound} == {"DELETE", "GET", "POST"}
    first, again = ([request(3, number, sound) for number in range(50)] for _ in range(2))
    assert first == again
    assert first != [request(4, number, sound) for number in range(50)]


@pytest.mark.parametrize("fault", ["raises", "stalls"])
def test_a_server_that_fails_or_stalls_is_found_out(endpoint, fault, monkeypatch):
    async def broken(model: object, job: object) -> None:
        await asyncio.sleep(2.5 if fault == "stalls" else 0)
        raise RuntimeError

    client = endpoint()
    monkeypatch.setattr("tests.serve.conftest.InProcess.score", broken)
    assert run(str(client.base_url), requests=40, clients=8, seed=0)["faults"]
