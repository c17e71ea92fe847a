import dataclasses
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gan_ray.artifacts.bundle import load_bundle, save_bundle
from gan_ray.artifacts.store import publish, resolve
from gan_ray.errors import ArtifactError, ConfigError
from gan_ray.storage.store import open_store

from .conftest import make_bundle


@pytest.fixture(params=["directory", "bucket"])
def registry(request, tmp_path) -> str:
    if request.param == "directory":
        return str(tmp_path / "registry")
    return f"{request.getfixturevalue('s3').uri}/models"


@pytest.fixture
def other(tmp_path) -> Path:
    """A bundle with the same name and version, but other weights."""
    return make_bundle(tmp_path / "other", "brainomaly", seed=1)


def keys(registry: str) -> list[str]:
    return [entry.key for entry in open_store(registry).list()]


def test_published_bundle_comes_back_byte_for_byte(pristine, registry, tmp_path):
    reference = publish(pristine, registry)
    assert reference == "tiny-brainomaly@1"
    found = resolve(reference, registry, cache=tmp_path / "cache")
    for file in pristine.iterdir():
        assert (found / file.name).read_bytes() == file.read_bytes()
    load_bundle(found)


def test_publishing_the_same_content_again_is_no_error_and_changes_nothing(pristine, registry):
    publish(pristine, registry)
    before = list(open_store(registry).list())
    assert publish(pristine, registry) == "tiny-brainomaly@1"
    assert list(open_store(registry).list()) == before


def test_version_is_never_overwritten_by_other_content(pristine, other, registry, tmp_path):
    publish(pristine, registry)
    with pytest.raises(ArtifactError, match=r"tiny-brainomaly@1 .* has other content"):
        publish(other, registry)
    found = load_bundle(resolve("tiny-brainomaly@1", registry, cache=tmp_path / "cache"))
    assert found.manifest == load_bundle(pristine).manifest


def test_next_takes_the_first_free_integer_and_knows_what_it_published(pristine, other, registry):
    assert publish(pristine, registry, version="next") == "tiny-brainomaly@1"
    assert publish(pristine, registry, version="next") == "tiny-brainomaly@1"
    assert publish(other, registry, version="next") == "tiny-brainomaly@2"
    assert publish(other, registry, version="next") == "tiny-brainomaly@2"
    assert publish(pristine, registry, version="candidate") == "tiny-brainomaly@candidate"
    assert publish(pristine, registry, version="next") == "tiny-brainomaly@3"


def test_restamped_version_is_sound_and_differs_in_the_version_only(pristine, registry, tmp_path):
    publish(pristine, registry, version="7")
    found = load_bundle(resolve("tiny-brainomaly@7", registry, cache=tmp_path / "cache")).manifest
    assert found == dataclasses.replace(load_bundle(pristine).manifest, version="7")


def test_half_published_bundle_is_not_there_until_it_is_completed(pristine, registry, tmp_path):
    store = open_store(registry)
    weights = (pristine / "weights.safetensors").read_bytes()
    store.put("tiny-brainomaly/1/weights.safetensors", weights)
    with pytest.raises(ArtifactError, match="unknown bundle"):
        resolve("tiny-brainomaly@1", registry, cache=tmp_path / "cache")
    publish(pristine, registry)
    resolve("tiny-brainomaly@1", registry, cache=tmp_path / "cache")


def test_another_ones_remains_are_not_mixed_in(pristine, other, registry, tmp_path):
    store = open_store(registry)
    weights = (other / "weights.safetensors").read_bytes()
    store.put("tiny-brainomaly/1/weights.safetensors", weights)
    with pytest.raises(ArtifactError, match="other content"):
        publish(pristine, registry)
    assert not store.exists("tiny-brainomaly/1/manifest.json")
    assert publish(pristine, registry, version="next") == "tiny-brainomaly@2"


def test_publishers_in_a_race_get_versions_of_their_own(registry, tmp_path, pristine):
    bundles = [make_bundle(tmp_path / f"{n}", "brainomaly", seed=n) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        references = list(pool.map(lambda b: publish(b, registry, version="next"), bundles))
    assert len(set(references)) == 4
    for bundle, reference in zip(bundles, references, strict=True):
        found = load_bundle(resolve(reference, registry, cache=tmp_path / "cache"))
        assert found.manifest.files == load_bundle(bundle).manifest.files


def test_unsound_bundle_is_never_published(bundle, registry):
    (bundle / "golden.npz").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"golden\.npz"):
        publish(bundle, registry)
    assert keys(registry) == []


def test_unknown_version_lists_those_that_exist(pristine, registry):
    publish(pristine, registry)
    publish(pristine, registry, version="2")
    with pytest.raises(ArtifactError, match="known are tiny-brainomaly@1, tiny-brainomaly@2"):
        resolve("tiny-brainomaly@3", registry)


def test_damage_in_the_registry_is_noticed_and_nothing_is_cached(pristine, registry, tmp_path):
    publish(pristine, registry)
    store, key = open_store(registry), "tiny-brainomaly/1/weights.safetensors"
    data = bytearray(store.get(key))
    data[-1] ^= 1
    store.put(key, bytes(data))
    with pytest.raises(ArtifactError, match=r"weights\.safetensors: has sha256"):
        resolve("tiny-brainomaly@1", registry, cache=tmp_path / "cache")
    assert list(tmp_path.glob("cache/*")) == []


def test_bundle_moved_to_another_name_is_refused(pristine, registry, tmp_path):
    publish(pristine, registry)
    store = open_store(registry)
    for key in keys(registry):
        store.put(key.replace("tiny-brainomaly/1", "famous/2"), store.get(key))
    with pytest.raises(ArtifactError, match="famous/2 holds tiny-brainomaly@1"):
        resolve("famous@2", registry, cache=tmp_path / "cache")


def test_folder_resolves_to_itself_and_is_verified(bundle):
    assert resolve(str(bundle)) == bundle.resolve()
    (bundle / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ArtifactError, match="has sha256"):
        resolve(str(bundle))


def test_name_without_a_registry_says_what_is_missing():
    with pytest.raises(ConfigError, match="needs a registry"):
        resolve("tiny@1")


def test_reference_that_climbs_out_of_the_registry_is_refused(pristine, tmp_path):
    publish(pristine, str(tmp_path / "registry"))
    shutil.copytree(pristine, tmp_path / "outside" / "1")
    for reference in ("..@outside", ".@outside", "@1", "a@..", "a@"):
        with pytest.raises(ConfigError, match="write name@version"):
            resolve(reference, str(tmp_path / "registry"))


class TestCache:
    def test_damaged_copy_is_fetched_again(self, pristine, s3, tmp_path):
        publish(pristine, s3.uri)
        first = resolve("tiny-brainomaly@1", s3.uri, cache=tmp_path)
        (first / "weights.safetensors").write_bytes(b"damaged")
        assert resolve("tiny-brainomaly@1", s3.uri, cache=tmp_path) == first
        load_bundle(first)

    def test_good_copy_is_not_fetched_again(self, pristine, s3, tmp_path):
        publish(pristine, s3.uri)
        resolve("tiny-brainomaly@1", s3.uri, cache=tmp_path)
        open_store(s3.uri).delete("tiny-brainomaly/1/weights.safetensors")
        resolve("tiny-brainomaly@1", s3.uri, cache=tmp_path)

    def test_address_of_the_folder_works_without_a_registry(self, pristine, s3, tmp_path):
        publish(pristine, s3.uri)
        found = resolve(f"{s3.uri}/tiny-brainomaly/1", cache=tmp_path)
        assert load_bundle(found).manifest.reference == "tiny-brainomaly@1"

    def test_address_without_a_bundle_is_an_artifact_error(self, s3, tmp_path):
        with pytest.raises(ArtifactError, match="is no bundle"):
            resolve(f"{s3.uri}/nothing", cache=tmp_path)

    def test_two_registries_with_the_same_reference_do_not_share_a_copy(
        self, pristine, other, s3, tmp_path
    ):
        publish(pristine, f"{s3.uri}/a")
        publish(other, f"{s3.uri}/b")
        a, b = (resolve("tiny-brainomaly@1", f"{s3.uri}/{r}", cache=tmp_path) for r in "ab")
        assert a != b
        assert load_bundle(a).manifest.files != load_bundle(b).manifest.files

    def test_processes_that_fetch_at_once_all_get_a_sound_copy(self, pristine, s3, tmp_path):
        publish(pristine, s3.uri)
        with ThreadPoolExecutor(4) as pool:
            jobs = [
                pool.submit(resolve, "tiny-brainomaly@1", s3.uri, cache=tmp_path) for _ in range(4)
            ]
            assert len({job.result() for job in jobs}) == 1
        assert len(list(tmp_path.iterdir())) == 1


def test_manifest_is_written_last(pristine, tmp_path, monkeypatch):
    from gan_ray.storage.local import LocalStore

    order, put = [], LocalStore.put

    def recorded(self, key, data, *, if_absent=False):
        order.append((key.rpartition("/")[2], if_absent))
        return put(self, key, data, if_absent=if_absent)

    monkeypatch.setattr(LocalStore, "put", recorded)
    publish(pristine, str(tmp_path / "registry"))
    assert order[-1] == ("manifest.json", True)
    assert sorted(order[:-1]) == [("golden.npz", True), ("weights.safetensors", True)]


def test_registry_directory_is_readable_as_it_stands(pristine, tmp_path):
    publish(pristine, str(tmp_path))
    folder = tmp_path / "tiny-brainomaly" / "1"
    assert json.loads((folder / "manifest.json").read_text())["name"] == "tiny-brainomaly"
    loaded = load_bundle(folder)
    save_bundle(tmp_path / "copy", loaded.detector, loaded.manifest, golden=loaded.golden)
    assert load_bundle(tmp_path / "copy").manifest.digest == loaded.manifest.digest
