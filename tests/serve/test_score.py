"""`POST /v2/models/{m}/score` over HTTP, without Ray."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import json

import numpy as np
import pytest
from fastapi import Request
from PIL import Image

from gan_ray.artifacts.bundle import load_bundle
from gan_ray.scoring.calibration import calibrate
from gan_ray.scoring.scorer import Scorer
from gan_ray.storage import open_store
from serve import bodies
from serve.failures import Failure
from serve.settings import Limits
from tests.serve.conftest import NORMALS, png, write_bundle

SCORE = "/v2/models/film/score"
PNG = {"Content-Type": "image/png"}


def of_files(scorer, *files: bytes) -> list[float]:
    return [r.score for r in scorer.score_files([(str(i), data) for i, data in enumerate(files)])]


def picture(uri: str) -> np.ndarray:
    kind, _, data = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_an_image_body_is_answered_as_the_contract_says(endpoint, bundle, scorer):
    response = endpoint().post(SCORE, content=png(1), headers=PNG)
    assert response.status_code == 200
    answer = response.json()
    timing = answer.pop("timing_ms")
    assert sorted(timing) == ["decode", "infer", "queue"]
    assert min(timing.values()) >= 0
    loaded = load_bundle(bundle)
    (score,) = of_files(scorer, png(1))
    calibration = loaded.calibration
    assert answer == {
        "model_name": "film",
        "model_version": "1",
        "id": response.headers["X-Request-ID"],
        "outputs": [
            {
                "input": "0",
                "score": score,
                "p_value": (1 + sum(s >= score for s in calibration.scores)) / (NORMALS + 1),
                "label": "abnormal" if score > calibration.threshold else "normal",
                "threshold": {
                    "value": calibration.threshold,
                    "fpr": 0.1,
                    "id": calibration.id,
                    "stratum": "",
                },
                "map": None,
                "image": None,
                "reconstruction": None,
                "preprocess": loaded.manifest.preprocessing,
                "warnings": [],
            }
        ],
    }


@pytest.mark.parametrize("kind", ["image/jpeg", "image/tiff", "image/bmp"])
def test_every_listed_format_is_scored_as_scorer_does(endpoint, scorer, kind):
    file = io.BytesIO()
    Image.open(io.BytesIO(png(2))).save(file, kind.removeprefix("image/"))
    response = endpoint().post(SCORE, content=file.getvalue(), headers={"Content-Type": kind})
    assert [response.json()["outputs"][0]["score"]] == of_files(scorer, file.getvalue())


def test_eight_and_sixteen_bit_parts_share_a_batch_and_keep_their_scores(endpoint, scorer):
    files = [png(1), png(2, sixteen=True), png(3)]
    parts = [("image", (f"{i}.png", data, "image/png")) for i, data in enumerate(files)]
    response = endpoint().post(SCORE, files=parts)
    assert response.status_code == 200
    outputs = response.json()["outputs"]
    assert [output["input"] for output in outputs] == ["0", "1", "2"]
    assert [o["score"] for o in outputs] == pytest.approx(of_files(scorer, *files), abs=1e-6)


def test_a_bad_part_leaves_its_neighbours_their_scores(endpoint, scorer):
    files = [png(1), b"no image", png(3)]
    response = endpoint().post(SCORE, files=[("image", (f"{i}", d)) for i, d in enumerate(files)])
    assert response.status_code == 207
    first, bad, last = response.json()["outputs"]
    assert [first["score"], last["score"]] == pytest.approx(of_files(scorer, png(1), png(3)))
    assert (bad["input"], bad["code"]) == ("1", "UNUSABLE_IMAGE")
    assert "not a PNG" in bad["error"]


def test_the_uris_of_a_list_are_scored_as_one_batch(endpoint, scorer, store, monkeypatch):
    batches = []
    score_images = Scorer.score_images

    def counted(self, images, **asked):
        batches.append(len(images))
        return score_images(self, images, **asked)

    monkeypatch.setattr(Scorer, "score_images", counted)
    paths = sorted(store.glob("[0-9]*.png"))
    client = endpoint()
    batches.clear()  # the golden images
    response = client.post(SCORE, json={"uris": [f"file://{path}" for path in paths]})
    assert response.status_code == 200
    assert batches == [len(paths)]
    outputs = response.json()["outputs"]
    assert [output["input"] for output in outputs] == [f"file://{path}" for path in paths]
    expected = of_files(scorer, *(path.read_bytes() for path in paths))
    assert [output["score"] for output in outputs] == pytest.approx(expected, abs=1e-6)


def test_objects_of_a_bucket_are_scored_where_they_are_allowed(endpoint, scorer, s3):
    bucket = open_store(s3.uri)
    for key in ("in/a.png", "in/patient 7/b.png", "out/c.png"):
        bucket.put(key, png(len(key)))
    client = endpoint(allow=(f"{s3.uri}/in",))
    uris = [f"{s3.uri}/in/a.png", f"{s3.uri}/in/patient 7/b.png"]
    response = client.post(SCORE, json={"uris": uris})
    assert response.status_code == 200
    expected = of_files(scorer, png(8), png(18))
    assert [o["score"] for o in response.json()["outputs"]] == pytest.approx(expected, abs=1e-6)
    response = client.post(SCORE, json={"uris": [*uris, f"{s3.uri}/out/c.png"]})
    assert response.status_code == 403


def test_a_missing_and_a_broken_object_are_named_beside_the_good_one(endpoint, store):
    uris = [str(store / name) for name in ("00.png", "none.png", "broken.png")]
    response = endpoint().post(SCORE, json={"uris": uris})
    assert response.status_code == 207
    good, missing, broken = response.json()["outputs"]
    assert good["score"] > 0
    assert (missing["input"], missing["code"]) == (uris[1], "NO_OBJECT")
    assert (broken["input"], broken["code"]) == (uris[2], "UNUSABLE_IMAGE")


def test_an_object_beyond_the_body_limit_is_not_scored(endpoint, store):
    limits = {"body_bytes": len((store / "00.png").read_bytes()) - 1}
    response = endpoint(limits=limits).post(SCORE, json={"uris": [str(store / "00.png")]})
    assert response.json()["outputs"][0]["code"] == "UNUSABLE_IMAGE"


def test_the_map_has_the_fixed_colour_scale_of_the_calibration(endpoint, bundle, scorer):
    response = endpoint().post(SCORE + "?map=png8", content=png(1, size=(16, 16)), headers=PNG)
    levels = picture(response.json()["outputs"][0]["map"])
    low, high = load_bundle(bundle).calibration.map_range
    pixels = np.array(Image.open(io.BytesIO(png(1, size=(16, 16)))))
    map_ = scorer.score_images(pixels[None, None], maps=True).maps[0]
    assert np.abs(levels - (255 * (map_ - low) / (high - low)).clip(0, 255)).max() <= 0.51


def test_a_map_of_values_comes_in_the_answer_or_lies_in_the_sink(endpoint, scorer, tmp_path):
    pixels = np.array(Image.open(io.BytesIO(png(1, size=(16, 16)))))
    expected = scorer.score_images(pixels[None, None], maps=True).maps[0].astype("<f2")
    client = endpoint(allow_sink=(str(tmp_path / "out"),))

    def output(how: str) -> dict:
        response = client.post(f"{SCORE}?map={how}", content=png(1, size=(16, 16)), headers=PNG)
        return response.json()["outputs"][0]

    content = output("f16")["map"].removeprefix("data:application/octet-stream;base64,")
    inside = np.frombuffer(base64.b64decode(content), "<f2").reshape(16, 16)
    np.testing.assert_array_equal(inside, expected)
    first, second = output("url")["map"], output("url")["map"]
    assert first.startswith(f"{tmp_path}/out/maps/")
    assert first != second, "no file is written over"
    for address in (first, second):
        np.testing.assert_array_equal(np.load(address), expected)


def test_without_a_sink_no_map_is_written(endpoint):
    response = endpoint().post(SCORE + "?map=url", content=png(1), headers=PNG)
    assert response.status_code == 403
    assert response.json()["code"] == "NO_SINK"
    assert "--allow-sink" in response.json()["hint"]


def test_a_sink_that_takes_nothing_is_told_without_its_reasons(endpoint, tmp_path):
    (tmp_path / "out").write_text("a file where a folder should be")
    client = endpoint(allow_sink=(str(tmp_path / "out"),))
    response = client.post(SCORE + "?map=url", content=png(1), headers=PNG)
    assert response.status_code == 503
    assert response.json()["code"] == "SINK_FAILED"
    assert str(tmp_path) not in response.text


@pytest.mark.parametrize("channels", [1, 3])
def test_the_reconstruction_comes_with_what_the_networks_saw(endpoint, tmp_path, channels):
    colour = write_bundle(tmp_path / "film", data={"channels": channels})
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    pixels = pixels if channels == 3 else pixels[..., 0]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    response = endpoint(colour).post(
        SCORE + "?reconstruction=png8", content=file.getvalue(), headers=PNG
    )
    output = response.json()["outputs"][0]
    assert output["map"] is None
    np.testing.assert_array_equal(picture(output["image"]), pixels)
    assert picture(output["reconstruction"]).shape == pixels.shape


def test_an_uncalibrated_bundle_gives_a_score_without_a_decision(endpoint, tmp_path):
    plain = write_bundle(tmp_path / "film", calibrated=False)
    response = endpoint(plain).post(SCORE + "?map=png8", content=png(1), headers=PNG)
    (output,) = response.json()["outputs"]
    assert output["score"] > 0
    assert (output["p_value"], output["label"], output["threshold"]) == (None, None, None)
    assert output["map"] is None
    assert "not calibrated" in output["warnings"][0]


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"not an image", PNG, 422, "UNUSABLE_IMAGE"),
        (b"", PNG, 400, "EMPTY_BODY"),
        (b"x", {"Content-Type": "text/plain"}, 415, "UNKNOWN_CONTENT_TYPE"),
        (b"x", {}, 415, "UNKNOWN_CONTENT_TYPE"),
        (b"x", {**PNG, "Content-Encoding": "gzip"}, 415, "COMPRESSED_BODY"),
        (b"x" * 1001, PNG, 413, "BODY_TOO_LARGE"),
        (b"{", {"Content-Type": "application/json"}, 400, "MALFORMED"),
        (b"[" * 900, {"Content-Type": "application/json"}, 400, "MALFORMED"),
        (b'{"uris": []}', {"Content-Type": "application/json"}, 400, "MALFORMED"),
        (b'{"uris": [1]}', {"Content-Type": "application/json"}, 400, "MALFORMED"),
        (b'{"urls": ["a"]}', {"Content-Type": "application/json"}, 400, "MALFORMED"),
        (b"x", {"Content-Type": "multipart/form-data"}, 400, "MALFORMED"),
        (b"--b--", {"Content-Type": "multipart/form-data; boundary=b"}, 400, "EMPTY_BODY"),
    ],
)
def test_an_unusable_body_is_refused_in_the_one_shape(endpoint, body, headers, status, code):
    client = endpoint(limits={"body_bytes": 1000})
    response = client.post(SCORE, content=body, headers=headers)
    refusal = response.json()
    assert (response.status_code, refusal["code"]) == (status, code)
    assert sorted(refusal) == ["code", "error", "hint", "request_id"]
    assert refusal["request_id"] == response.headers["X-Request-ID"]
    assert refusal["error"]
    assert refusal["hint"]


@pytest.mark.parametrize("read", [bodies.whole, bodies.parts])
def test_a_body_of_unstated_length_is_dropped_at_the_limit(read):
    chunks = 0

    async def endless() -> dict:
        nonlocal chunks
        chunks += 1
        part = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
        return {"type": "http.request", "body": part.ljust(100_000, b"x"), "more_body": True}

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    request = Request({"type": "http", "headers": headers}, endless)
    with pytest.raises(Failure) as refused:
        asyncio.run(read(request, Limits(body_bytes=1_000_000)))
    assert refused.value.status == 413
    assert chunks == 11


def test_parts_beyond_the_limit_are_refused(endpoint):
    client = endpoint(limits={"parts": 2})
    files = [("image", (f"{i}.png", png(i))) for i in range(3)]
    assert client.post(SCORE, files=files[:2]).status_code == 200
    response = client.post(SCORE, files=files)
    assert (response.status_code, response.json()["code"]) == (413, "TOO_MANY_PARTS")


def test_a_form_field_that_is_no_file_is_refused(endpoint):
    files = [("image", ("a.png", png())), ("name", (None, b"value"))]
    response = endpoint().post(SCORE, files=files)
    assert (response.status_code, response.json()["code"]) == (400, "MALFORMED")


def test_more_uris_than_allowed_are_refused(endpoint, store):
    client = endpoint(limits={"uris": 2})
    response = client.post(SCORE, json={"uris": [str(store / "00.png")] * 3})
    assert (response.status_code, response.json()["code"]) == (413, "TOO_MANY_URIS")


def test_pictures_of_many_images_are_refused(endpoint, store):
    client = endpoint(limits={"parts": 2})
    uris = {"uris": [str(store / "00.png")] * 3}
    assert client.post(SCORE, json=uris).status_code == 200
    response = client.post(SCORE + "?map=png8", json=uris)
    assert (response.status_code, response.json()["code"]) == (413, "TOO_MANY_PICTURES")


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/hostname",
        "file:///etc/hostname",
        "s3://elsewhere/a.png",
        "http://127.0.0.1/a.png",
        "{store}/../secret.png",
        "{store}/%2e%2e/secret.png",
        "{store}x/00.png",
        "{store}/link.png",
        "",
    ],
)
def test_one_uri_outside_the_allow_list_refuses_the_whole_list(endpoint, store, tmp_path, uri):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png())
    link = store / "link.png"
    link.symlink_to(secret)
    try:
        uris = [str(store / "00.png"), uri.format(store=store)]
        response = endpoint().post(SCORE, json={"uris": uris})
    finally:
        link.unlink()
    assert (response.status_code, response.json()["code"]) == (403, "URI_NOT_ALLOWED")


def test_nothing_is_read_without_an_allow_list(endpoint, store):
    response = endpoint(allow=()).post(SCORE, json={"uris": [str(store / "00.png")]})
    assert response.status_code == 403


def test_an_unknown_picture_format_is_refused(endpoint):
    response = endpoint().post(SCORE + "?map=jpeg", content=png(), headers=PNG)
    assert (response.status_code, response.json()["code"]) == (400, "MALFORMED")


def test_every_number_of_an_answer_is_strict_json(endpoint):
    response = endpoint().post(SCORE, content=png(1), headers=PNG)
    json.loads(response.text, parse_constant=lambda text: pytest.fail(text))


def test_a_stratum_is_judged_by_its_own_threshold_which_is_named(endpoint, tmp_path, scorer):
    def by_site(calibration):
        higher, north = np.asarray(calibration.scores) + 10, np.full(NORMALS, "north")
        own = calibrate(higher, 0.1, by="site", strata=north).strata
        return dataclasses.replace(calibration, by="site", strata=own)

    client = endpoint(write_bundle(tmp_path / "bundle", adjust=by_site))
    calibration = load_bundle(tmp_path / "bundle").calibration
    for stratum, site in (("north", "north"), ("south", ""), ("", "")):
        answer = client.post(
            SCORE, content=png(1), headers=PNG, params={"stratum": stratum} if stratum else {}
        ).json()
        (output,) = answer["outputs"]
        threshold = calibration.of(stratum)
        assert output["threshold"] == {
            "value": threshold.threshold, "fpr": 0.1, "id": threshold.id, "stratum": site,
        }  # fmt: skip
        score = np.array([output["score"]])
        assert output["label"] == ("abnormal" if threshold.abnormal(score)[0] else "normal")
        assert output["p_value"] == threshold.p_values(score)[0]
        assert bool(output["warnings"]) == (stratum == "south")
