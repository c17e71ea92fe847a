"""`POST /v2/models/{m}/infer`: images as numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from serve.tensors import LENGTH

INFER = "/v2/models/film/infer"


def tensor(images: np.ndarray, datatype: str) -> dict:
    return {
        "name": "image",
        "shape": list(images.shape),
        "datatype": datatype,
        "data": images.ravel().tolist(),
    }


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (3, 1, 16, 16), np.uint8)


@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
def test_numbers_are_scored_as_the_image_they_came_from(endpoint, scorer, images, datatype):
    sent = images if datatype == "UINT8" else (images / 127.5 - 1).astype(np.float32)
    outputs = [{"name": n} for n in ("score", "anomaly_map", "reconstruction", "p_value")]
    request = {"id": "42", "inputs": [tensor(sent, datatype)], "outputs": outputs}
    response = endpoint().post(INFER, json=request)
    assert response.status_code == 200
    answer = response.json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("film", "1", "42")
    score, map_, reconstruction, p_value = answer["outputs"]
    expected = scorer.score_images(images, maps=True, reconstructions=True)
    assert (score["name"], score["datatype"], score["shape"]) == ("score", "FP32", [3])
    np.testing.assert_allclose(score["data"], expected.scores, atol=1e-6)
    assert map_["shape"] == [3, 1, 16, 16]
    np.testing.assert_allclose(map_["data"], expected.maps.ravel(), atol=1e-5)
    assert reconstruction["shape"] == [3, 1, 16, 16]
    np.testing.assert_allclose(reconstruction["data"], expected.reconstructions.ravel(), atol=1e-5)
    assert p_value["shape"] == [3]


def test_the_score_alone_is_given_when_nothing_is_asked_for(endpoint, images):
    answer = endpoint().post(INFER, json={"inputs": [tensor(images, "UINT8")]}).json()
    assert [output["name"] for output in answer["outputs"]] == ["score"]
    assert answer["id"].startswith("r-")


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"shape": [3, 1, 16, 15]}, 400, "WRONG_SHAPE"),
        ({"shape": [2, 1, 16, 16]}, 400, "WRONG_SHAPE"),
        ({"shape": [-3, 1, 16, 16]}, 400, "WRONG_SHAPE"),
        ({"shape": [0, 1, 16, 16], "data": []}, 400, "WRONG_SHAPE"),
        ({"datatype": "FP32"}, 400, "WRONG_RANGE"),
        ({"data": [0.5] * 768}, 400, "WRONG_RANGE"),
        ({"data": [-1] * 768}, 400, "WRONG_RANGE"),
        ({"datatype": "INT64"}, 400, "MALFORMED"),
        ({"data": ["1"] * 768}, 400, "MALFORMED"),
        ({"name": "film"}, 400, "MALFORMED"),
    ],
)
def test_a_tensor_that_does_not_suit_the_model_is_refused(endpoint, images, changes, status, code):
    request = {"inputs": [tensor(images, "UINT8") | changes]}
    response = endpoint().post(INFER, json=request)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_numbers_may_be_nested_as_the_shape_says(endpoint, images):
    client = endpoint()
    flat = tensor(images, "UINT8")
    nested = flat | {"data": images.tolist()}
    found, expected = (
        client.post(INFER, json={"id": "1", "inputs": [sent]}).json() for sent in (nested, flat)
    )
    assert found == expected
    assert len(found["outputs"][0]["data"]) == len(images)


def test_rows_of_other_lengths_than_the_shape_says_are_refused(endpoint, images):
    rows = images.tolist()
    rows[0][0][0].append(rows[0][0][1].pop())  # as many numbers as before
    request = {"inputs": [tensor(images, "UINT8") | {"data": rows}]}
    response = endpoint().post(INFER, json=request)
    assert (response.status_code, response.json()["code"]) == (400, "MALFORMED")
    assert "nested as `shape` says" in response.json()["error"]


@pytest.mark.parametrize("where", ["request", "input", "output"])
def test_a_parameter_without_effect_is_refused_with_a_hint(endpoint, images, where):
    def request(parameters: dict) -> dict:
        parts = {"request": {}, "input": tensor(images, "UINT8"), "output": {"name": "score"}}
        parts[where]["parameters"] = parameters
        return parts["request"] | {"inputs": [parts["input"]], "outputs": [parts["output"]]}

    client = endpoint()
    for parameters in ({"sequence_id": 1}, {"binary_data": 1}, {"binary_data_output": "yes"}):
        response = client.post(INFER, json=request(parameters))
        assert (response.status_code, response.json()["code"]) == (400, "UNKNOWN_PARAMETER")
        assert next(iter(parameters)) in response.json()["error"]
    assert client.post(INFER, json=request({"binary_data": False})).status_code == 200


def packed(request: dict, raw: bytes, stated: int | None = None) -> dict:
    """The body and headers of a document with values behind it."""
    head = json.dumps(request).encode()
    length = len(head) if stated is None else stated
    return {"content": head + raw, "headers": {"Content-Type": "application/octet-stream",
                                               LENGTH: str(length)}}  # fmt: skip


@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
def test_bytes_behind_the_document_say_the_same_as_numbers_in_it(endpoint, images, datatype):
    sent = images if datatype == "UINT8" else (images / 127.5 - 1).astype("<f4")
    client, wanted = endpoint(), [{"name": "score"}, {"name": "anomaly_map"}]
    numbers = {"inputs": [tensor(sent, datatype)], "outputs": wanted}
    expected = client.post(INFER, json=numbers).json()["outputs"]
    named = {k: v for k, v in tensor(sent, datatype).items() if k != "data"}
    raw = {"inputs": [named | {"parameters": {"binary_data_size": sent.nbytes}}],
           "outputs": [wanted[0], wanted[1] | {"parameters": {"binary_data": True}}]}  # fmt: skip
    response = client.post(INFER, **packed(raw, sent.tobytes()))
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/octet-stream"
    length = int(response.headers[LENGTH])
    score, map_ = json.loads(response.content[:length])["outputs"]
    assert score == expected[0]
    assert map_ == {k: v for k, v in expected[1].items() if k != "data"} | {
        "parameters": {"binary_data_size": 4 * images.size}
    }
    found = np.frombuffer(response.content[length:], "<f4")
    np.testing.assert_allclose(found, np.array(expected[1]["data"], "<f4"))
    every = numbers | {"parameters": {"binary_data_output": True}}
    response = client.post(INFER, json=every)
    assert len(response.content) == int(response.headers[LENGTH]) + 4 * (3 + images.size)


@pytest.mark.parametrize(
    ("size", "sent", "stated", "code"),
    [
        (768, 767, None, "MALFORMED"),
        (768, 768, 10**6, "MALFORMED"),
        (768, 768, 5, "MALFORMED"),
        (700, 700, None, "WRONG_SHAPE"),
        (-1, 0, None, "MALFORMED"),
        (None, 768, None, "MALFORMED"),
    ],
)
def test_bytes_that_are_not_what_the_document_says_are_refused(
    endpoint, images, size, sent, stated, code
):
    named = {k: v for k, v in tensor(images, "UINT8").items() if k != "data"}
    parameters = {} if size is None else {"parameters": {"binary_data_size": size}}
    body = packed({"inputs": [named | parameters]}, images.tobytes()[:sent], stated)
    response = endpoint().post(INFER, **body)
    assert (response.status_code, response.json()["code"]) == (400, code)


def test_numbers_that_are_none_are_refused(endpoint, images):
    values = ["NaN"] + ["0"] * (images.size - 1)
    body = (
        '{"inputs": [{"name": "image", "shape": [3, 1, 16, 16], "datatype": "FP32", '
        f'"data": [{", ".join(values)}]}}]}}'
    )
    response = endpoint().post(INFER, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400


def test_more_images_than_allowed_are_refused(endpoint, images):
    response = endpoint(limits={"uris": 2}).post(INFER, json={"inputs": [tensor(images, "UINT8")]})
    assert (response.status_code, response.json()["code"]) == (413, "TOO_MANY_IMAGES")
