import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from gan_ray import architectures
from gan_ray.artifacts.bundle import load_bundle, save_bundle
from gan_ray.artifacts.golden import golden_images
from gan_ray.artifacts.manifest import parse_manifest
from gan_ray.detector import ImageSpec
from gan_ray.errors import ArtifactError, ConfigError, StorageError
from gan_ray.experiment import build_detector
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import make_score

from .conftest import make_bundle

FILES = ("golden.npz", "manifest.json", "weights.safetensors")


class Touch:
    """A payload that would write a file while it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", architectures.names())
def test_every_architecture_scores_bit_equal_from_its_bundle(name, tmp_path):
    bundle = load_bundle(make_bundle(tmp_path / "bundle", name))
    trained = build_detector(bundle.experiment)
    expected = Scorer(trained, make_score(bundle.score, trained)).score_images(bundle.golden.images)
    found = Scorer.from_bundle(bundle).score_images(bundle.golden.images)
    assert np.array_equal(found.scores, expected.scores)
    assert np.array_equal(found.scores, bundle.golden.scores)


@pytest.mark.parametrize("name", architectures.names())
def test_bundle_carries_only_the_networks_that_score_frozen_in_eval_mode(name, tmp_path):
    bundle = load_bundle(make_bundle(tmp_path / "bundle", name))
    stored = load((tmp_path / "bundle" / "weights.safetensors").read_bytes())
    infers = set(architectures.get(name).infers)
    assert set(bundle.detector.networks) == infers
    networks = {key.split(".")[1] for key in stored if key.startswith("networks.")}
    assert networks == infers
    assert {t.dtype for t in stored.values() if t.is_floating_point()} == {torch.float32}
    assert not any(module.training for module in bundle.detector.modules())
    assert not any(p.requires_grad for p in bundle.detector.parameters())


def test_weights_are_those_that_were_saved_and_not_those_of_the_seed(tmp_path, pristine):
    source = load_bundle(pristine)
    with torch.no_grad():
        for parameter in source.detector.parameters():
            parameter.add_(0.125)
    path = save_bundle(tmp_path / "b", source.detector, source.manifest, golden=source.golden)
    loaded = load_bundle(path).detector.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in source.detector.state_dict().items())


def test_double_precision_weights_are_stored_in_single_precision(tmp_path, pristine):
    source = load_bundle(pristine)
    wanted = {key: value.clone() for key, value in source.detector.state_dict().items()}
    detector = source.detector.double()
    loaded = load_bundle(
        save_bundle(tmp_path / "b", detector, source.manifest, golden=source.golden)
    )
    assert all(torch.equal(loaded.detector.state_dict()[k], v) for k, v in wanted.items())


def test_saving_twice_gives_the_same_bytes(tmp_path, pristine):
    again = make_bundle(tmp_path / "again", "brainomaly")
    for name in FILES:
        assert (again / name).read_bytes() == (pristine / name).read_bytes()


def test_saving_over_something_is_refused_and_changes_nothing(bundle, pristine):
    source = load_bundle(pristine)
    before = {file: file.read_bytes() for file in bundle.iterdir()}
    with pytest.raises(ConfigError, match="exists already"):
        save_bundle(bundle, source.detector, source.manifest, golden=source.golden)
    assert {file: file.read_bytes() for file in bundle.iterdir()} == before


def test_failed_save_leaves_nothing_behind(tmp_path, pristine):
    source = load_bundle(pristine)
    next(source.detector.parameters()).fill_(float("nan"))
    with pytest.raises(ArtifactError, match="not finite"):
        save_bundle(tmp_path / "b", source.detector, source.manifest, golden=source.golden)
    assert list(tmp_path.iterdir()) == []


def test_place_that_cannot_be_written_is_a_storage_error(tmp_path, pristine):
    source = load_bundle(pristine)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        save_bundle(tmp_path / "file" / "b", source.detector, source.manifest, golden=source.golden)


def test_one_corrupted_weight_byte_is_refused(bundle):
    file = bundle / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"weights\.safetensors: has sha256 .* fetch or export"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named_with_the_remedy(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name}: no such file.*fetch the bundle again"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_link_is_refused_even_to_the_right_content(bundle, pristine, name):
    (bundle / name).unlink()
    (bundle / name).symlink_to(pristine / name)
    with pytest.raises(ArtifactError, match=f"{name}: a link"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_pipe_or_folder_in_a_files_place_neither_blocks_nor_crashes(bundle, name):
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(ArtifactError, match="not a regular file"):
        load_bundle(bundle)
    (bundle / name).unlink()
    (bundle / name).mkdir()
    with pytest.raises(ArtifactError, match="is a directory"):
        load_bundle(bundle)


def test_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="as `gan-ray export` writes it"):
        load_bundle(tmp_path / "nowhere")


def test_table_without_the_weights_is_refused(bundle):
    manifest = parse_manifest((bundle / "manifest.json").read_bytes())
    less = {"golden.npz": manifest.files["golden.npz"]}
    (bundle / "manifest.json").write_bytes(dataclasses.replace(manifest, files=less).to_json())
    with pytest.raises(ArtifactError, match="lacks weights"):
        load_bundle(bundle)


def header(data: bytes) -> tuple[dict, bytes]:
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(table: dict, body: bytes) -> bytes:
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + body


def test_damaged_safetensors_headers_are_refused_although_their_digest_is_right(bundle, forge):
    data = (bundle / "weights.safetensors").read_bytes()
    table, body = header(data)
    name = next(key for key in table if key != "__metadata__")
    lying = {**table, name: {**table[name], "shape": [2**40]}}
    behind = {**table, name: {**table[name], "data_offsets": [0, 2**62]}}
    for damaged in (
        b"",
        data[:4],
        data[:200],
        data[:-1],
        data + b"x",
        struct.pack("<Q", 2**63) + data[8:],
        struct.pack("<Q", 2**40) + data[8:],
        struct.pack("<Q", 200_000_000) + b"{" + b" " * 1000,
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        joined(lying, body),
        joined(behind, body),
    ):
        forge({"weights.safetensors": damaged})
        with pytest.raises(ArtifactError, match=r"weights\.safetensors: no readable safetensors"):
            load_bundle(bundle)


def changed_weights(bundle: Path, change) -> bytes:
    tensors = load((bundle / "weights.safetensors").read_bytes())
    change(tensors, sorted(tensors)[0])
    return save(tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, name: t.update(extra=torch.zeros(1)), "first at extra.*needed nothing"),
        (lambda t, name: t.pop(name), "found nothing"),
        (lambda t, name: t.update({name: t[name].double()}), "float64"),
        (lambda t, name: t.update({name: t[name].half()}), "float16"),
        (lambda t, name: t.update({name: t[name][None]}), "does not fit"),
        (lambda t, name: t[name].fill_(float("nan")), "not finite"),
        (lambda t, name: t[name].view(-1)[:1].fill_(float("inf")), "not finite"),
    ],
    ids=["extra", "missing", "double", "half", "shape", "nan", "one infinity"],
)
def test_weights_that_do_not_fit_exactly_are_refused(bundle, forge, change, message):
    forge({"weights.safetensors": changed_weights(bundle, change)})
    with pytest.raises(ArtifactError, match=message):
        load_bundle(bundle)


def npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@settings(max_examples=40, deadline=None)
@given(start=st.integers(0, 700), noise=st.binary(min_size=1, max_size=8))
def test_noise_in_a_safetensors_header_is_refused_or_harmless(pristine, start, noise):
    data = bytearray((pristine / "weights.safetensors").read_bytes())
    data[start : start + len(noise)] = noise
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(shutil.copytree(pristine, Path(folder) / "bundle"))
        (bundle / "weights.safetensors").write_bytes(data)
        manifest = parse_manifest((bundle / "manifest.json").read_bytes())
        digest = hashlib.sha256(data).hexdigest()
        files = {**manifest.files, "weights.safetensors": digest}
        sealed = dataclasses.replace(manifest, files=files)
        (bundle / "manifest.json").write_bytes(sealed.to_json())
        with contextlib.suppress(ArtifactError):
            load_bundle(bundle)


def test_pickles_are_refused_everywhere_and_never_run(bundle, forge, tmp_path):
    target = tmp_path / "touched"
    payload = Touch(target)
    assert not target.exists()
    raw, saved = pickle.dumps(payload), io.BytesIO()
    torch.save(payload, saved)
    objects = np.array([payload], dtype=object)
    array = io.BytesIO()
    np.save(array, objects)
    arrays = np.load(bundle / "golden.npz")
    images, scores = arrays["images"], arrays["scores"]
    hidden = (npz(images=images, scores=objects), npz(images=objects, scores=scores))
    for data in (*hidden, raw, saved.getvalue(), array.getvalue()):
        forge({"golden.npz": data})
        with pytest.raises(ArtifactError, match=r"golden\.npz: not readable as plain arrays"):
            load_bundle(bundle)
    forge({"golden.npz": npz(images=images, scores=scores)})
    load_bundle(bundle)
    for data in (raw, saved.getvalue()):
        forge({"weights.safetensors": data})
        with pytest.raises(ArtifactError, match="no readable safetensors"):
            load_bundle(bundle)
    (bundle / "manifest.json").write_bytes(raw)
    with pytest.raises(ArtifactError, match="not a readable JSON document"):
        load_bundle(bundle)
    assert not target.exists()
    pickle.loads(raw)
    assert target.exists(), "the payload would have worked"


def test_archive_bomb_in_golden_is_refused_before_it_unpacks(forge):
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("images.npy", "w") as member,
    ):
        for _ in range(300):
            member.write(bytes(2**20))
    with pytest.raises(ArtifactError, match="unpacks to more than"):
        load_bundle(forge({"golden.npz": file.getvalue()}))


def test_golden_arrays_of_another_kind_are_refused(bundle, forge):
    arrays = np.load(bundle / "golden.npz")
    images, scores = arrays["images"], arrays["scores"]
    for changed in (
        npz(images=images),
        npz(images=images[:0], scores=scores[:0]),
        npz(images=images, scores=scores[:-1]),
        npz(images=images.astype(np.float32), scores=scores),
        npz(images=images, scores=scores.astype(np.float64)),
        npz(images=images, scores=scores * np.float32("nan")),
        npz(images=images[:, :, 1:], scores=scores),
        npz(images=images, scores=scores[0]),
    ):
        forge({"golden.npz": changed})
        with pytest.raises(ArtifactError, match=r"golden\.npz"):
            load_bundle(bundle)


@pytest.mark.parametrize(
    "fields",
    [
        {"fit": "pad"},
        {"architecture": "ganomaly"},
        {"preprocessing": "0" * 16},
        {"image": {"size": 32}},
        {"experiment": {"data": {"image_size": 32}}},
        {"experiment": {"architecture": "no-such-system"}},
        {"experiment": {"model": {"width": -1}}},
        {"experiment": {"surprise": 1}},
        {"score": {"name": "latent"}},
        {"score": {"surprise": 1}},
        {"calibration": {"threshold": "high"}},
    ],
    ids=str,
)
def test_manifest_at_odds_with_itself_is_refused(forge, fields):
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        load_bundle(forge(**fields))


def test_bundle_without_calibration_loads(bundle):
    manifest = parse_manifest((bundle / "manifest.json").read_bytes())
    without = dataclasses.replace(manifest, calibration=None)
    (bundle / "manifest.json").write_bytes(without.to_json())
    assert load_bundle(bundle).calibration is None


def test_golden_images_depend_on_the_spec_alone_and_differ_from_each_other():
    images = golden_images(ImageSpec(size=28, channels=3))
    assert images.shape == (8, 3, 28, 28)
    assert images.dtype == np.uint8
    assert np.array_equal(images, golden_images(ImageSpec(size=28, channels=3)))
    assert len({image.tobytes() for image in images}) == 8
    assert all(len({channel.tobytes() for channel in image}) == 3 for image in images)
