"""Jobs over whole prefixes, over HTTP without Ray."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from gan_ray.artifacts.bundle import load_bundle
from gan_ray.errors import DataError
from gan_ray.scoring.batch import read_rows
from gan_ray.storage import open_store
from serve import jobs as serve_jobs
from serve.api import api
from serve.card import Card
from serve.jobs import Jobs, Prefixes
from serve.model import Model
from serve.schemas import JobStatus
from serve.settings import AppArgs
from tests.serve.conftest import InProcess, running

TOKEN = "correct-horse-battery"
JOBS = "/v2/jobs"

Client = Callable[..., httpx.Client]


class Gate:
    """Runs jobs as `Prefixes` does, each once it is let through; counts those it has begun."""

    def __init__(self, bundle: Path) -> None:
        self.run = Prefixes({"film": str(bundle)}, None, workers=0)
        self.open, self.begun = threading.Event(), 0
        self.open.set()

    def __call__(self, job: JobStatus, progress, stop) -> None:
        self.begun += 1
        while not self.open.wait(0.01):
            if stop():
                return
        self.run(job, progress, stop)


@pytest.fixture
def gate(bundle: Path) -> Gate:
    return Gate(bundle)


@pytest.fixture
def endpoint(bundle: Path, store: Path, tmp_path: Path, gate: Gate) -> Iterator[Client]:
    """Make a client of an endpoint with jobs, which score in this process."""
    with ExitStack() as stack:

        def client(**fields) -> httpx.Client:
            given = {"host": "127.0.0.1", "token": "", "allow": (str(store),),
                     "allow_sink": (str(tmp_path / "out"),)}  # fmt: skip
            args = AppArgs(bundles=(str(bundle),), **{**given, **fields})
            card = Card.read(bundle)
            models = {card.name: InProcess(card, Model(load_bundle(bundle)))}
            desk = Jobs(args.job_registry, gate) if args.allow_sink else None
            url = stack.enter_context(running(api(args, models, desk)))
            return stack.enter_context(httpx.Client(base_url=url, timeout=30))

        yield client


@pytest.fixture
def body(store: Path, tmp_path: Path) -> dict:
    return {
        "model": "film",
        "source": {"uri": str(store)},
        "sink": {"uri": str(tmp_path / "out" / "scores")},
    }


def submitted(client: httpx.Client, body: dict, key: str | None = None) -> str:
    headers = {} if key is None else {"Idempotency-Key": key}
    response = client.post(JOBS, json=body, headers=headers)
    assert response.status_code == 202, response.text
    assert response.headers["Location"] == f"{JOBS}/{response.json()['id']}"
    return response.headers["Location"]


def ended(client: httpx.Client, job: str) -> dict:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        answer = client.get(job).json()
        if answer["state"] not in ("queued", "running"):
            return answer
        time.sleep(0.02)
    raise AssertionError(f"the job did not end: {answer}")


def test_a_job_scores_a_whole_prefix(endpoint: Client, body: dict):
    client = endpoint()
    job = submitted(client, body)
    answer = ended(client, job)
    assert (answer["state"], answer["error"]) == ("done", None)
    assert (answer["total"], answer["done"], answer["failed"]) == (41, 41, 1)
    assert (answer["request"]["source"], answer["version"]) == ({**body["source"], "glob": ""}, "1")
    rows = read_rows(body["sink"]["uri"]).to_pylist()
    (error,) = answer["errors"]
    assert [row["error"] for row in rows if row["id"] == error["id"]] == [error["error"]]
    assert client.get(JOBS).json() == {"jobs": [answer]}


def test_results_come_in_pages_that_make_up_all_rows(endpoint: Client, body: dict):
    client = endpoint()
    job = submitted(client, body)
    ended(client, job)
    rows, page = [], f"{job}/results?limit=17"
    sizes = []
    while page:
        response = client.get(page)
        assert response.headers["Content-Type"] == "application/x-ndjson"
        lines = response.text.splitlines()
        sizes.append(len(lines))
        rows += [json.loads(line) for line in lines]
        page = response.links.get("next", {}).get("url")
    assert sizes == [17, 17, 7]
    assert rows == read_rows(body["sink"]["uri"]).to_pylist()


@pytest.mark.parametrize("query", ["cursor=x", "cursor=1", "cursor=-1.0", "limit=0", "limit=10001"])
def test_a_page_that_cannot_be_is_refused(endpoint: Client, body: dict, query: str):
    client = endpoint()
    response = client.get(f"{submitted(client, body)}/results?{query}")
    assert (response.status_code, response.json()["code"]) == (400, "MALFORMED")


def test_results_of_a_job_that_goes_on_say_that_there_will_be_more(
    endpoint: Client, body: dict, gate: Gate
):
    gate.open.clear()
    client = endpoint()
    job = submitted(client, body)
    response = client.get(f"{job}/results")
    assert (response.status_code, response.text) == (200, "")
    gate.open.set()
    ended(client, job)
    again = client.get(response.links["next"]["url"])
    assert len(again.text.splitlines()) == 41


def test_the_same_key_with_the_same_body_is_the_same_job(endpoint: Client, body: dict, gate: Gate):
    client = endpoint()
    first = submitted(client, body, "monday")
    ended(client, first)
    assert submitted(client, body, "monday") == first
    assert gate.begun == 1
    other = {**body, "options": {"maps": True}}
    response = client.post(JOBS, json=other, headers={"Idempotency-Key": "monday"})
    assert (response.status_code, response.json()["code"]) == (409, "KEY_REUSED")
    assert submitted(client, body) != first
    assert submitted(client, body, "tuesday") != first


def test_a_cancelled_job_keeps_what_is_done_and_a_new_one_goes_on(
    endpoint: Client, body: dict, gate: Gate, bundle: Path, store: Path
):
    gate.open.clear()
    client = endpoint()
    running_job, waiting = submitted(client, body), submitted(client, body)
    while client.get(running_job).json()["state"] != "running":
        time.sleep(0.01)
    assert client.get(waiting).json()["state"] == "queued"
    for job in (waiting, running_job):
        response = client.delete(job)
        assert (response.status_code, response.json()["state"]) == (202, "cancelled")
        assert response.json()["resumable"]
    assert client.get(f"{running_job}/results").text == ""
    gate.open.set()
    assert ended(client, submitted(client, body))["done"] == 41
    assert [client.get(job).json()["state"] for job in (waiting, running_job)] == ["cancelled"] * 2
    assert gate.begun == 2
    finished = client.get(JOBS).json()["jobs"][0]
    assert client.delete(f"{JOBS}/{finished['id']}").json() == finished, "an ended job stays ended"


def test_a_process_that_starts_on_the_registry_goes_on_with_its_jobs(
    endpoint: Client, body: dict, gate: Gate
):
    gate.open.clear()
    first = endpoint()
    jobs = [submitted(first, body), submitted(first, {**body, "options": {"max_errors": 0.5}})]
    cancelled = submitted(first, body)
    first.delete(cancelled)
    gate.open.set()  # of the first process, nothing more is asked from here on
    second = endpoint()
    assert [ended(second, job)["state"] for job in (*jobs, cancelled)] == [
        *("done", "done", "cancelled"),
    ]
    assert len(read_rows(body["sink"]["uri"])) == 41
    listed = second.get(JOBS).json()["jobs"]
    assert [f"{JOBS}/{job['id']}" for job in listed] == [cancelled, *reversed(jobs)]


@pytest.mark.parametrize(
    ("changes", "says", "resumable"),
    [
        ({"options": {"max_errors": 0.01}}, "1 of 41 objects could not be scored", True),
        ({"source": {"uri": "{store}/nothing"}}, "there is no image in", False),
        ({"source": {"uri": "{store}", "glob": "*.dcm"}}, "no image that fits *.dcm", False),
        ({"source": {"uri": "{store}/00.png"}}, "is a file", False),
    ],
)
def test_a_job_that_fails_says_why(
    endpoint: Client, body: dict, store: Path, changes: dict, says: str, resumable: bool
):
    client = endpoint()
    changes = json.loads(json.dumps(changes).replace("{store}", str(store)))
    answer = ended(client, submitted(client, {**body, **changes}))
    assert answer["state"] == "failed"
    assert says in answer["error"]
    assert answer["resumable"] is resumable


def test_a_fault_of_ours_ends_its_job_alone_and_tells_nothing(
    endpoint: Client, body: dict, gate: Gate, monkeypatch, caplog
):
    monkeypatch.setattr(Prefixes, "__call__", lambda *_: Path("/secret/path").read_bytes())
    client = endpoint()
    answer = ended(client, submitted(client, body))
    assert (answer["state"], answer["resumable"]) == ("failed", True)
    assert "secret" not in json.dumps(answer)
    assert "failed: FileNotFoundError" in caplog.text
    monkeypatch.undo()
    assert ended(client, submitted(client, body))["state"] == "done"


def test_a_job_for_a_version_that_is_gone_fails_after_a_restart(
    endpoint: Client, body: dict, gate: Gate, tmp_path: Path
):
    gate.open.clear()
    job = submitted(endpoint(), body)
    gate.run = Prefixes({}, None, workers=0)
    gate.open.set()
    answer = ended(endpoint(), job)
    assert answer["state"] == "failed"
    assert "version 1 of model 'film' is not served any more" in answer["error"]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"model": "none"}, 404, "UNKNOWN_MODEL"),
        ({"version": "2"}, 404, "UNKNOWN_VERSION"),
        ({"source": {"uri": "/etc"}}, 403, "URI_NOT_ALLOWED"),
        ({"source": {"uri": "{store}/../.."}}, 403, "URI_NOT_ALLOWED"),
        ({"source": {"uri": "https://films.example/in"}}, 403, "URI_NOT_ALLOWED"),
        ({"sink": {"uri": "{store}"}}, 403, "URI_NOT_ALLOWED"),
        ({"sink": {"uri": "s3://elsewhere/out"}}, 403, "URI_NOT_ALLOWED"),
        ({"sink": {"uri": "{out}/jobs"}}, 403, "URI_NOT_ALLOWED"),
        ({"sink": {"uri": "{out}/jobs/deeper"}}, 403, "URI_NOT_ALLOWED"),
        ({"source": {}}, 400, "MALFORMED"),
        ({"options": {"max_errors": 2}}, 400, "MALFORMED"),
        ({"options": {"maps": "yes"}}, 400, "MALFORMED"),
        ({"workers": 99}, 400, "MALFORMED"),
    ],
)
def test_what_cannot_be_a_job_is_refused_and_not_written_down(
    endpoint: Client, body: dict, store: Path, tmp_path: Path, changes: dict, status: int, code: str
):
    client = endpoint()
    text = json.dumps({**body, **changes})
    sent = text.replace("{store}", str(store)).replace("{out}", str(tmp_path / "out"))
    response = client.post(JOBS, content=sent, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert sorted(response.json()) == ["code", "error", "hint", "request_id"]
    assert client.get(JOBS).json() == {"jobs": []}


def test_a_job_may_name_the_version_that_is_served(endpoint: Client, body: dict):
    client = endpoint()
    assert ended(client, submitted(client, {**body, "version": "1"}))["state"] == "done"


def test_there_are_no_jobs_unless_a_place_to_write_to_is_allowed(endpoint: Client, body: dict):
    client = endpoint(allow_sink=())
    for verb, path in (("POST", JOBS), ("GET", JOBS), ("GET", f"{JOBS}/j-1")):
        response = client.request(verb, path, json=body)
        assert (response.status_code, response.json()["code"]) == (403, "NO_JOBS")
    assert "jobs" not in client.get("/v2").json()["extensions"]
    assert "jobs" in endpoint().get("/v2").json()["extensions"]


def test_a_job_that_nobody_knows_is_not_found(endpoint: Client):
    client = endpoint()
    for verb, path in (("GET", "j-1"), ("DELETE", "j-1"), ("GET", "j-1/results")):
        response = client.request(verb, f"{JOBS}/{path}")
        assert (response.status_code, response.json()["code"]) == (404, "UNKNOWN_JOB")


def test_jobs_need_the_token(endpoint: Client, body: dict):
    client = endpoint(token=TOKEN)
    for verb, path in (
        *(("POST", JOBS), ("GET", JOBS)),
        *(("GET", f"{JOBS}/j-1"), ("GET", f"{JOBS}/j-1/results"), ("DELETE", f"{JOBS}/j-1")),
    ):
        response = client.request(verb, path, json=body)
        assert (response.status_code, response.json()["code"]) == (401, "NO_TOKEN")
    client.headers["Authorization"] = f"Bearer {TOKEN}"
    assert ended(client, submitted(client, body))["state"] == "done"


def test_too_many_waiting_jobs_are_shed(endpoint: Client, body: dict, gate: Gate, monkeypatch):
    monkeypatch.setattr(serve_jobs, "WAITING", 2)
    gate.open.clear()
    client = endpoint()
    first = submitted(client, body)
    while client.get(first).json()["state"] != "running":
        time.sleep(0.01)
    waiting = [submitted(client, body) for _ in range(2)]
    response = client.post(JOBS, json=body)
    assert (response.status_code, response.json()["code"]) == (429, "OVERLOADED")
    assert int(response.headers["Retry-After"]) > 0
    client.delete(waiting[0])
    submitted(client, body)
    gate.open.set()


def test_the_registry_forgets_the_oldest_jobs_that_have_ended(
    endpoint: Client, body: dict, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(serve_jobs, "KEPT", 2)
    client = endpoint()
    jobs = []
    for _ in range(4):
        jobs.append(submitted(client, body))
        ended(client, jobs[-1])
    assert [client.get(job).status_code for job in jobs] == [404, 404, 200, 200]
    assert len(list((tmp_path / "out" / "jobs").iterdir())) == 2
    assert len(read_rows(body["sink"]["uri"])) == 41


def test_a_file_in_the_registry_that_is_no_job_does_not_keep_the_others_from_theirs(
    endpoint: Client, body: dict, tmp_path: Path, caplog
):
    open_store(str(tmp_path / "out" / "jobs")).put("odd.json", b"{}")
    client = endpoint()
    assert ended(client, submitted(client, body))["state"] == "done"
    assert "odd.json" in caplog.text


def test_a_registry_that_cannot_be_written_is_no_crash(
    endpoint: Client, body: dict, tmp_path: Path
):
    client = endpoint(jobs=str(tmp_path / "registry"))
    (tmp_path / "registry").write_text("a file, not a folder")
    response = client.post(JOBS, json=body)
    assert (response.status_code, response.json()["code"]) == (503, "UNREACHABLE")


def test_a_registry_that_breaks_off_fails_its_job_and_not_the_next(
    endpoint: Client, body: dict, gate: Gate, tmp_path: Path
):
    registry = tmp_path / "registry"
    client = endpoint(jobs=str(registry))
    gate.open.clear()
    job = submitted(client, body)
    while client.get(job).json()["state"] != "running":
        time.sleep(0.01)
    registry.rename(tmp_path / "away")
    registry.write_text("a file, not a folder")
    gate.open.set()
    assert ended(client, job)["error"] == "the place of the jobs cannot be written"
    registry.unlink()
    (tmp_path / "away").rename(registry)
    assert ended(client, submitted(client, body))["state"] == "done"


def test_a_failed_bundle_is_told_in_the_words_of_its_error(
    endpoint: Client, body: dict, gate: Gate
):
    def broken(*_) -> None:
        raise DataError("nothing to be done")

    gate.run = broken
    client = endpoint()
    assert ended(client, submitted(client, body))["error"] == "nothing to be done"
