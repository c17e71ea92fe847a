import dataclasses
import hashlib
import json

import pytest

from gan_ray.artifacts.manifest import Manifest, parse_manifest
from gan_ray.errors import ArtifactError


@pytest.fixture
def document(pristine) -> dict:
    return json.loads((pristine / "manifest.json").read_text())


def encoded(document: dict) -> bytes:
    return json.dumps(document).encode()


def test_document_survives_the_round_trip_byte_for_byte(pristine):
    data = (pristine / "manifest.json").read_bytes()
    assert parse_manifest(data).to_json() == data


def test_schema_comes_first_and_digest_last(document):
    assert next(iter(document)) == "schema"
    assert list(document)[-1] == "digest"
    assert document["schema"] == 1


def test_spelling_of_a_number_does_not_change_the_digest(pristine):
    manifest = parse_manifest((pristine / "manifest.json").read_bytes())
    whole = dataclasses.replace(manifest, metrics={"val/aucp": 1})
    assert whole.digest == dataclasses.replace(manifest, metrics={"val/aucp": 1.0}).digest
    assert parse_manifest(whole.to_json()).digest == whole.digest


@pytest.mark.parametrize("schema", [2, 0, "1", None, True, [1]])
def test_unknown_schema_is_refused_and_both_are_named(document, schema):
    document["schema"] = schema
    with pytest.raises(ArtifactError, match=r"schema .* is unknown.* reads schema 1") as caught:
        parse_manifest(encoded(document))
    assert repr(schema) in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        ("name",),
        ("version",),
        ("fit",),
        ("data_fingerprint",),
        ("preprocessing",),
        ("experiment", "data", "image_size"),
        ("calibration", "threshold"),
        ("metrics", "val/aucp"),
        ("training", "images"),
        ("image", "size"),
    ],
)
def test_a_field_changed_after_export_is_noticed(document, path):
    place = document
    for key in path[:-1]:
        place = place[key]
    old = place[path[-1]]
    place[path[-1]] = old + "x" if isinstance(old, str) else old + 1
    with pytest.raises(ArtifactError, match="field was changed"):
        parse_manifest(encoded(document))


def test_two_digests_swapped_in_the_files_table_are_noticed(document):
    files = document["files"]
    files["golden.npz"], files["weights.safetensors"] = files.values()
    with pytest.raises(ArtifactError, match="field was changed"):
        parse_manifest(encoded(document))


REQUIRED = [f.name for f in dataclasses.fields(Manifest) if f.default is dataclasses.MISSING]


@pytest.mark.parametrize("field", REQUIRED)
def test_missing_field_is_named(document, field):
    del document[field]
    with pytest.raises(ArtifactError, match=field):
        parse_manifest(encoded(document), "here/manifest.json")


def test_unknown_fields_are_refused_at_every_level(document):
    for place in (document, document["image"], document["training"]):
        place["surprise"] = 1
        with pytest.raises(ArtifactError, match="surprise"):
            parse_manifest(encoded(document))
        del place["surprise"]


@pytest.mark.parametrize(
    "name",
    ["../outside", "/etc/passwd", "a/b", "a\\b", "..", ".hidden", "", "manifest.json", "a\n", "ä"],
)
def test_files_table_cannot_name_anything_outside_the_folder(document, name):
    document["files"][name] = "0" * 64
    with pytest.raises(ArtifactError, match="only plain names"):
        parse_manifest(encoded(document))


@pytest.mark.parametrize("name", ["a/b", "..", "a@b", "", "x" * 129, "-rf"])
def test_names_that_could_leave_the_registry_are_refused(document, name):
    for field in ("name", "version"):
        with pytest.raises(ArtifactError, match=field):
            parse_manifest(encoded({**document, field: name}))


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe", b"[1]", b'{"schema": 1', b'{"schema": NaN}', b"[" * 100_000, b"null"],
)
def test_what_is_no_manifest_is_refused_with_the_place(data):
    with pytest.raises(ArtifactError, match=r"^here/manifest\.json: "):
        parse_manifest(data, "here/manifest.json")


def test_numbers_that_are_not_finite_are_never_written(pristine):
    manifest = parse_manifest((pristine / "manifest.json").read_bytes())
    with pytest.raises(ArtifactError, match="not finite"):
        dataclasses.replace(manifest, metrics={"val/aucp": float("nan")}).to_json()


def test_a_document_without_a_field_that_has_a_default_is_read(document):
    """Bundles of an earlier release lack the fields that came since."""
    del document["image"]["classes"], document["digest"]
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    document["digest"] = hashlib.sha256(text.encode()).hexdigest()
    assert parse_manifest(json.dumps(document).encode()).image.classes == 1
