"""A bundle as a feature network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gan_ray.artifacts.bundle import load_bundle
from gan_ray.artifacts.manifest import MANIFEST, Manifest, parse_manifest
from gan_ray.config import from_dict, to_dict
from gan_ray.data.transforms import prepare, to_unit
from gan_ray.detector import ImageSpec
from gan_ray.errors import ArtifactError, ConfigError
from gan_ray.scoring.features import FeatureNetwork
from tests.artifacts.conftest import make_bundle

GREY = ImageSpec(size=16, channels=1)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (70, 1, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def fanogan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("features") / "fanogan", "f-anogan")


def test_features_are_those_of_the_image_itself(fanogan: Path):
    critic = load_bundle(fanogan).detector.networks["critic"]
    wanted = critic.features(torch.from_numpy(IMAGES)).numpy()
    found = FeatureNetwork(str(fanogan), GREY)(IMAGES, "cpu")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("system", ["alad", "f-unetgan", "ra-ccgan"])
def test_every_system_with_features_and_an_encoder_gives_a_row_per_image(
    tmp_path: Path, system: str
):
    network = FeatureNetwork(str(make_bundle(tmp_path / "bundle", system)), GREY)
    found = network(IMAGES, "cpu")
    assert found.ndim == 2
    assert len(np.unique(found, axis=0)) == len(IMAGES)
    np.testing.assert_allclose(network(IMAGES[5:7], "cpu"), found[5:7], rtol=1e-3, atol=1e-5)


def test_feature_maps_are_averaged_over_places(tmp_path: Path):
    path = make_bundle(tmp_path / "bundle", "alad")
    detector = load_bundle(path).detector
    with torch.no_grad():
        maps = detector.evidence(torch.from_numpy(IMAGES)).features["pair"][0]
    means = maps.reshape(len(maps), maps.shape[1], -1).mean(2).numpy()
    np.testing.assert_allclose(FeatureNetwork(str(path), GREY)(IMAGES, "cpu"), means, rtol=1e-4)


def test_images_of_another_size_are_resized_as_those_that_the_network_learned_from(fanogan: Path):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 64, 64), dtype=np.uint8)
    stored = np.stack([prepare(image, GREY, "resize") for image in pixels])
    network = FeatureNetwork(str(fanogan), GREY)
    wanted = network(to_unit(stored, "cpu").numpy(), "cpu")
    found = network(to_unit(pixels[:, None], "cpu").numpy(), "cpu")
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)  # stored is rounded
    small = network(np.full((1, 1, 8, 8), 0.3, np.float32), "cpu")
    large = network(np.full((1, 1, 16, 16), 0.3, np.float32), "cpu")
    np.testing.assert_allclose(small, large, rtol=1e-4, atol=1e-5)


def test_grey_images_fill_three_channels_but_colours_are_not_lost(fanogan: Path, tmp_path: Path):
    colour = make_bundle(tmp_path / "colour", "f-anogan", data={"channels": 3})
    network = FeatureNetwork(str(colour), GREY)
    np.testing.assert_array_equal(
        network(IMAGES, "cpu"), network(np.repeat(IMAGES, 3, axis=1), "cpu")
    )
    with pytest.raises(ConfigError, match="would not see the colours"):
        FeatureNetwork(str(fanogan), ImageSpec(size=16, channels=3))


def test_a_system_without_features_is_refused_with_those_that_have_them(tmp_path: Path):
    path = make_bundle(tmp_path / "bundle", "brainomaly")
    with pytest.raises(ConfigError, match=r"no features of an image alone.*alad.*f-anogan"):
        FeatureNetwork(str(path), GREY)


def test_a_system_that_needs_classes_is_refused(tmp_path: Path):
    path = make_bundle(tmp_path / "bundle", "ra-ccgan")
    manifest = to_dict(parse_manifest((path / MANIFEST).read_bytes()))
    manifest["experiment"]["model"]["label_policy"] = "known"
    manifest["experiment"]["data"] |= {"source": "folder", "classes": "source"}
    (path / MANIFEST).write_bytes(from_dict(Manifest, manifest).to_json())
    assert load_bundle(path).detector.conditional
    with pytest.raises(ConfigError, match="not conditioned on a known class"):
        FeatureNetwork(str(path), GREY)


def test_a_system_that_searches_is_refused(tmp_path: Path):
    path = make_bundle(tmp_path / "bundle", "anogan", model={"search_steps": 60})
    with pytest.raises(ConfigError, match="120 network passes per image"):
        FeatureNetwork(str(path), GREY)


def test_a_damaged_bundle_is_refused(tmp_path: Path):
    path = make_bundle(tmp_path / "bundle", "f-anogan")
    weights = bytearray((path / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (path / "weights.safetensors").write_bytes(weights)
    with pytest.raises(ArtifactError, match="sha256"):
        FeatureNetwork(str(path), GREY)
