"""Health, metadata, tokens and the page, over HTTP without Ray."""

from __future__ import annotations

import re

import pytest

from gan_ray.artifacts.bundle import load_bundle
from gan_ray.errors import ArtifactError, ConfigError
from serve.model import Model
from serve.settings import AppArgs, is_loopback
from tests.serve.conftest import png, write_bundle

TOKEN = "correct-horse-battery"
SCORE = "/v2/models/film/score"


def test_the_server_names_itself_its_models_and_its_limits(endpoint, bundle, tmp_path):
    client = endpoint(bundle, write_bundle(tmp_path / "other", name="other"))
    answer = client.get("/v2").json()
    assert answer["name"] == "gan-ray"
    assert answer["models"] == ["film", "other"]
    assert answer["extensions"] == ["binary_tensor_data", "score", "uris"]
    assert answer["limits"] == {
        "body_bytes": 32 * 2**20,
        "parts": 64,
        "uris": 1024,
        "pixels": 40_000_000,
        "deadline_s": 30.0,
    }


def test_the_index_lists_all_versions_and_clients_control_none(endpoint, bundle, tmp_path):
    client = endpoint(bundle, write_bundle(tmp_path / "other", name="other"))
    answer = client.post("/v2/repository/index").json()
    assert sorted((one["name"], one["version"], one["state"]) for one in answer) == [
        ("film", "1", "READY"),
        ("other", "1", "READY"),
    ]
    for action in ("load", "unload"):
        response = client.post(f"/v2/repository/models/film/{action}")
        assert (response.status_code, response.json()["code"]) == (403, "NO_MODEL_CONTROL")
    assert client.post("/v2/repository/models/film/drop").status_code == 400


def test_a_model_is_described_in_the_protocols_terms(endpoint, bundle):
    answer = endpoint().get("/v2/models/film").json()
    manifest = load_bundle(bundle).manifest
    assert answer["name"] == "film"
    assert answer["versions"] == ["1"]
    assert answer["platform"] == "pytorch_safetensors"
    assert answer["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 16, 16]}]
    assert answer["outputs"][0] == {"name": "score", "datatype": "FP32", "shape": [-1]}
    assert answer["parameters"]["digest"] == f"sha256:{manifest.digest}"
    assert answer["parameters"]["threshold"]["value"] == manifest.calibration["threshold"]


def test_a_calibration_gives_its_threshold_one_name_everywhere(endpoint):
    client = endpoint()
    scored = client.post(SCORE, content=png(), headers={"Content-Type": "image/png"}).json()
    described = client.get("/v2/models/film").json()["parameters"]["threshold"]
    assert scored["outputs"][0]["threshold"] == described
    assert re.fullmatch(r"thr-[0-9a-f]{8}", described["id"])


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/health/ready", 200),
        ("GET", "/v2/models/film/ready", 200),
        ("GET", "/v2/models/film/versions/1", 200),
        ("GET", "/v2/models/film/versions/1/ready", 200),
        ("GET", "/v2/models/none/versions/1", 404),
        ("GET", "/v2/models/film/versions/1/nothing", 404),
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/none/ready", 404),
        ("POST", "/v2/models/none/score", 404),
        ("POST", "/v2/models/none/infer", 404),
        ("GET", "/nothing", 404),
        ("GET", "/static/../settings.py", 404),
        ("GET", "/static/%2e%2e/settings.py", 404),
        ("DELETE", "/v2", 405),
        ("GET", "/openapi.json", 200),
    ],
)
def test_every_route_answers_with_its_status(endpoint, verb, path, status):
    response = endpoint().request(verb, path)
    assert response.status_code == status
    if status >= 400:
        assert sorted(response.json()) == ["code", "error", "hint", "request_id"]


def test_a_version_in_the_address_changes_nothing_but_the_address(endpoint):
    client = endpoint()
    plain, versioned = "/v2/models/film", "/v2/models/film/versions/1"
    assert client.get(versioned).json() == client.get(plain).json()
    image = {"content": png(), "headers": {"Content-Type": "image/png"}}
    outputs = [client.post(f"{at}/score", **image).json()["outputs"] for at in (plain, versioned)]
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    ("verb", "end"), [("GET", ""), ("GET", "/ready"), ("POST", "/score"), ("POST", "/infer")]
)
def test_another_version_is_not_found_and_the_hint_names_the_known_one(endpoint, verb, end):
    response = endpoint().request(verb, f"/v2/models/film/versions/2{end}")
    answer = response.json()
    assert (response.status_code, answer["code"]) == (404, "UNKNOWN_VERSION")
    assert answer["hint"] == "versions here: 1"


def test_a_model_with_other_golden_scores_is_not_ready(bundle):
    loaded = load_bundle(bundle)
    model = Model(loaded)
    loaded.golden.scores[3] += 2e-4
    with pytest.raises(ArtifactError, match="golden"):
        model.check_golden()
    with pytest.raises(ArtifactError, match="golden"):
        Model(loaded)


def test_a_model_that_drifts_turns_the_endpoint_unready(endpoint, bundle, monkeypatch):
    client = endpoint()
    assert client.get("/v2/health/ready").status_code == 200

    def drifted(self):
        raise ArtifactError("golden scores differ")

    monkeypatch.setattr(Model, "check_golden", drifted)
    for path in ("/v2/health/ready", "/v2/models/film/ready"):
        response = client.get(path)
        assert (response.status_code, response.json()["code"]) == (503, "NOT_READY")
    assert client.get("/v2/health/live").status_code == 200


@pytest.mark.parametrize(
    "header",
    [None, "", TOKEN, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"],
)
def test_nothing_is_told_without_the_token(endpoint, header):
    client = endpoint(token=TOKEN, host="0.0.0.0")
    headers = {} if header is None else {"Authorization": header.encode()}
    version = "/v2/models/film/versions/2"
    for verb, path in (
        *(("GET", "/v2"), ("GET", "/v2/models/film"), ("POST", SCORE)),
        *(("GET", version), ("POST", f"{version}/score")),
    ):
        response = client.request(verb, path, headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "NO_TOKEN")
        assert response.headers["WWW-Authenticate"] == "Bearer"


def test_the_token_opens_everything(endpoint):
    client = endpoint(token=TOKEN, host="0.0.0.0")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/v2", headers=headers).status_code == 200
    response = client.post(SCORE, content=png(), headers={**headers, "Content-Type": "image/png"})
    assert response.status_code == 200


def test_probes_and_the_page_need_no_token(endpoint):
    client = endpoint(token=TOKEN, host="0.0.0.0")
    for path in ("/", "/static/app.js", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200


def test_the_token_comes_from_the_environment_and_shows_nowhere(monkeypatch):
    monkeypatch.setenv("GAN_RAY_TOKEN", TOKEN)
    args = AppArgs(bundles=["film"])
    assert args.token.get_secret_value() == TOKEN
    assert TOKEN not in f"{args!r} {args} {args.model_dump_json()}"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "film.example", ""])
def test_a_host_that_others_reach_needs_a_token(host):
    with pytest.raises(ConfigError, match="GAN_RAY_TOKEN"):
        AppArgs(bundles=["film"], host=host, token="").check_exposure()
    AppArgs(bundles=["film"], host=host, token=TOKEN).check_exposure()


def test_a_short_token_is_refused():
    with pytest.raises(ConfigError, match="at least 16"):
        AppArgs(bundles=["film"], host="0.0.0.0", token="short").check_exposure()


def test_the_proxy_that_listens_everywhere_needs_a_token_on_loopback_too(monkeypatch):
    AppArgs(bundles=["film"], host="127.0.0.1", token="").check_exposure()
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    with pytest.raises(ConfigError, match="HAProxy"):
        AppArgs(bundles=["film"], host="127.0.0.1", token="").check_exposure()


def test_loopback_is_known_by_address_and_by_its_one_name():
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "localhost.example", "128.0.0.1", "::", "")))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "", "127.0.0.1.evil.example"])
def test_without_a_token_a_foreign_name_for_this_machine_is_refused(endpoint, host):
    response = endpoint().get("/v2", headers={"Host": host})
    assert (response.status_code, response.json()["code"]) == (403, "FOREIGN_HOST")


def test_a_request_keeps_the_name_that_its_client_gave_it(endpoint):
    client = endpoint()
    named = client.get("/v2", headers={"X-Request-ID": "case-7"})
    assert named.headers["X-Request-ID"] == "case-7"
    hostile = client.get("/v2", headers={"X-Request-ID": "a b<script>"})
    assert re.fullmatch(r"r-[0-9a-f]{12}", hostile.headers["X-Request-ID"])


def test_a_failure_of_ours_tells_the_client_only_its_name(endpoint, monkeypatch):
    def broken(self, jobs):
        raise OSError("/secret/path")

    monkeypatch.setattr(Model, "score", broken)
    response = endpoint().post(SCORE, content=png(), headers={"Content-Type": "image/png"})
    assert (response.status_code, response.json()["code"]) == (500, "INTERNAL")
    assert "secret" not in response.text


def test_the_page_loads_nothing_from_elsewhere(endpoint):
    client = endpoint()
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    wanted = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert wanted
    for path in wanted:
        assert path.startswith("/static/")
        asset = client.get(path)
        assert asset.status_code == 200
        assert "http://" not in asset.text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in asset.text
