"""The graphs beside a bundle's weights: they score alike, and nothing loads one unasked."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_ray import architectures
from gan_ray.__main__ import main
from gan_ray.artifacts import formats
from gan_ray.artifacts.bundle import load_bundle
from gan_ray.artifacts.export import export
from gan_ray.artifacts.formats import FORMATS, GraphScorer, write_graphs
from gan_ray.artifacts.golden import golden_classes, golden_images
from gan_ray.artifacts.graph import ScoringGraph, inputs
from gan_ray.artifacts.parity import verify
from gan_ray.config import ScoreConfig
from gan_ray.detector import Evidence, ImageSpec
from gan_ray.errors import ArtifactError, ConfigError
from gan_ray.experiment import build_detector, make
from gan_ray.scoring.heads import parse_head
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import Scored, make_score, offered
from tests.scoring.toy import Settings, Toy, toy

BOTH = ["pt2", "onnx"]
ONE_PASS = [name for name in architectures.names() if not architectures.get(name).searches]
VARIANTS = [(name, v) for name in ONE_PASS for v in ("", *architectures.get(name).variants)]

needs_onnx = pytest.mark.skipif(
    bool(formats.missing((*FORMATS["onnx"].writer, *FORMATS["onnx"].reader))),
    reason="the extra onnx is not installed",
)


def built(name: str, variant: str = "", **changes):
    """Give a tiny detector whose batch norms have seen images, and its paper's score."""
    detector = build_detector(make(name, variant=variant, preset="tiny", changes=changes))
    generator = torch.Generator().manual_seed(0)
    for module in detector.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return detector, make_score(ScoreConfig(), detector)


def assert_alike(detector, score, graphs: list[str]) -> None:
    """Graphs score as the Scorer does, in batches of 1, 3 and 8."""
    images = golden_images(detector.image)
    classes = golden_classes(images, detector.image)
    expected = Scorer(detector, score).score_images(images, classes=classes).scores
    files = write_graphs(detector, score, graphs)
    for name in graphs:
        data = files[FORMATS[name].file]
        graph = GraphScorer(FORMATS[name], data, conditional=detector.conditional)
        for rows in (slice(0, 1), slice(1, 4), slice(0, 8)):
            found = graph(images[rows], classes[rows])
            np.testing.assert_allclose(found, expected[rows], rtol=2e-5, atol=2e-6)
            assert found.dtype == np.float32


@pytest.mark.parametrize("name", ONE_PASS)
def test_every_system_scores_alike_from_a_pt2_at_any_batch_size(name):
    assert_alike(*built(name), ["pt2"])


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_every_variant_scores_alike_from_both_graphs_at_any_batch_size(name, variant):
    assert_alike(*built(name, variant), BOTH)


@pytest.mark.parametrize("policy", ["known", "predict"])
def test_every_way_to_a_class_is_in_the_graph(policy):
    changes = {"model": {"label_policy": policy}, "data": {"classes": "source"}}
    assert_alike(*built("ra-ccgan", **changes), ["pt2"])


class Constant(Toy):
    """Takes class k for an image of brightness k / 4."""

    name = "constant"
    conditional = True

    def evidence(self, images, classes=None):
        return Evidence(reconstruction=(classes.float() / 4).view(-1, 1, 1, 1).expand_as(images))


@needs_onnx
def test_a_graph_takes_classes_where_the_detector_does():
    detector = Constant(Settings(), ImageSpec(size=16, channels=1, classes=3))
    assert_alike(detector, make_score(ScoreConfig(), detector), BOTH)


class Everything(Toy):
    """The toy with every kind of evidence that a score can need."""

    name = "everything"
    offers = frozenset(
        {"reconstruction", "latents.code", "logits.image", "logits.reconstruction", "logits.pair"}
        | {f"features.{name}" for name in ("critic", "discriminator", "global", "pixel", "pair")}
    )

    def evidence(self, images, classes=None):
        seen = super().evidence(images)
        features, code = seen.features["critic"], seen.latents["code"]
        logit = code[0].mean(1)
        return Evidence(
            reconstruction=seen.reconstruction,
            features=dict.fromkeys(("critic", "discriminator", "pair"), features)
            | {"global": code, "pixel": (images, seen.reconstruction)},
            latents=seen.latents,
            logits=dict.fromkeys(("image", "reconstruction", "pair"), logit),
        )


class Together:
    """All scores of a detector side by side, so that one graph tries them all."""

    def __init__(self, scores) -> None:
        self.scores = scores

    def __call__(self, images, evidence):
        found = [score(images, evidence) for score in self.scores]
        columns = [f.score.float() for f in found] + [f.map.float().mean((1, 2, 3)) for f in found]
        return Scored(torch.stack(columns, 1))


HEADS = [*offered(Everything), "smooth=1.5", "top=0.05"]


@pytest.mark.parametrize(
    ("heads", "graphs"),
    [
        (HEADS, ["pt2"]),
        pytest.param([h for h in HEADS if h != "ssim"], ["onnx"], marks=needs_onnx),
        # Hundreds of operators, which take torch.onnx a minute.
        pytest.param(["ssim"], ["onnx"], marks=[needs_onnx, pytest.mark.slow]),
    ],
)
def test_every_head_and_its_map_are_alike_in_a_graph(heads, graphs):
    detector, own = toy(Everything), ScoreConfig(name="residual")
    scores = [make_score(parse_head(head, own, detector), detector) for head in heads]
    assert_alike(detector, Together(scores), graphs)


@needs_onnx
def test_a_graph_gives_maps_and_reconstructions_by_their_names():
    import onnxruntime

    detector = toy()
    score = make_score(ScoreConfig(), detector)
    images = golden_images(detector.image)
    wanted = Scorer(detector, score).score_images(images, maps=True, reconstructions=True)
    expected = {
        "score": wanted.scores,
        "anomaly_map": wanted.maps[:, None],
        "reconstruction": wanted.reconstructions,
    }
    files = write_graphs(detector, score, BOTH)
    rows = inputs(images, None, conditional=False)
    session = onnxruntime.InferenceSession(files["model.onnx"])
    names = [output.name for output in session.get_outputs()]
    by_onnx = dict(zip(names, session.run(names, dict(rows)), strict=True))
    loaded = torch.export.load(io.BytesIO(files["model.pt2"])).module()
    by_pt2 = loaded(image=torch.from_numpy(rows["image"]))
    for found in (by_onnx, {name: tensor.numpy() for name, tensor in by_pt2.items()}):
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=2e-5, atol=2e-6)


def test_tracing_changes_neither_the_detector_nor_its_mode():
    detector = toy()
    score = make_score(ScoreConfig(), detector)
    detector.train()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    write_graphs(detector, score, ["pt2"])
    assert all(torch.equal(before[name], now) for name, now in detector.state_dict().items())
    assert detector.training
    assert all(parameter.requires_grad for parameter in detector.parameters())


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, finished) -> Path:
    """A bundle with both graphs; no test may change it."""
    path = tmp_path_factory.mktemp("bundles") / "both"
    return export(finished, path, fpr=0.2, formats="safetensors,pt2,onnx")


@needs_onnx
def test_both_graphs_stand_in_the_manifest_and_a_changed_byte_is_refused(bundles, tmp_path):
    manifest = load_bundle(bundles).manifest
    assert sorted(manifest.files) == [
        *("golden.npz", "model.onnx", "model.pt2"),
        "weights.safetensors",
    ]
    for file in ("model.onnx", "model.pt2"):
        copy = tmp_path / file
        copy.mkdir()
        for part in bundles.iterdir():
            (copy / part.name).write_bytes(part.read_bytes())
        data = bytearray((copy / file).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / file).write_bytes(data)
        with pytest.raises(ArtifactError, match=rf"{file}: has sha256"):
            verify(copy)


@needs_onnx
def test_verify_replays_every_graph_that_is_safe_and_the_other_when_trusted(bundles, capsys):
    report = verify(bundles)
    assert list(report["replayed"]) == ["weights.safetensors", "model.onnx"]
    assert "can run code" in report["not_replayed"]["model.pt2"]
    assert main(["verify", str(bundles), "--trust-pt2", "--json"]) == 0
    trusted = json.loads(capsys.readouterr().out)
    assert sorted(trusted["replayed"]) == ["model.onnx", "model.pt2", "weights.safetensors"]
    assert trusted["not_replayed"] == {}
    assert trusted["max_score_difference"] == max(trusted["replayed"].values()) < 1e-5


def test_trust_without_a_graph_that_needs_it_is_an_error(pristine):
    with pytest.raises(ConfigError, match="no graph that needs trust"):
        verify(pristine, trusted=True)


@needs_onnx
def test_graphs_tell_nothing_of_the_machine_that_made_them(bundles):
    for file in ("model.onnx", "model.pt2"):
        data = (bundles / file).read_bytes()
        for place in (Path(__file__).parents[2], Path(torch.__file__).parents[1], Path.home()):
            assert str(place).encode() not in data


@needs_onnx
def test_a_pt2_of_ours_holds_no_pickle(bundles):
    with zipfile.ZipFile(bundles / "model.pt2") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    configs = [json.loads(data) for name, data in parts.items() if name.endswith("config.json")]
    assert configs
    assert not any(entry["use_pickle"] for c in configs for entry in c["config"].values())
    assert not any(data.startswith((b"\x80", b"PK")) for data in parts.values())


class Touch:
    """A payload that writes a file while it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pt2_that_runs_code_is_loaded_by_nobody_unless_trusted(forge, tmp_path):
    detector, score = built("brainomaly")
    (data,) = write_graphs(detector, score, ["pt2"]).values()
    payload, hostile = io.BytesIO(), io.BytesIO()
    torch.save(Touch(tmp_path / "ran"), payload)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (listing,) = (name for name in parts if name.endswith("weights_config.json"))
    config = json.loads(parts[listing])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    (weight,) = (name for name in parts if name.endswith(f"weights/{first['path_name']}"))
    with zipfile.ZipFile(hostile, "w") as archive:
        changed = {listing: json.dumps(config).encode(), weight: payload.getvalue()}
        for name, part in (parts | changed).items():
            archive.writestr(name, part)
    path = forge({"model.pt2": hostile.getvalue()})
    load_bundle(path)
    assert "model.pt2" in verify(path)["not_replayed"]
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ArtifactError):
        verify(path, trusted=True)
    assert (tmp_path / "ran").exists()  # what the trust is about


@needs_onnx
@pytest.mark.parametrize("name", BOTH)
def test_a_graph_that_scores_otherwise_is_refused_and_leaves_nothing(
    name, finished, tmp_path, monkeypatch, capsys
):
    forward = ScoringGraph.forward

    def shifted(self, image, classes=None):
        return {k: v + 3e-4 for k, v in forward(self, image, classes).items()}

    monkeypatch.setattr(ScoringGraph, "forward", shifted)
    out = tmp_path / "bundle"
    arguments = ["export", str(finished), "-o", str(out), "--fpr", "0.2", "--format", name]
    assert main(arguments) == 3
    assert f"held-out normals, {FORMATS[name].file}: scores changed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_system_that_searches_is_refused_with_the_way_out(tmp_path, monkeypatch):
    detector, score = built("anogan")
    with pytest.raises(ConfigError, match=r"anogan searches .* 10 network passes .*f-anogan"):
        write_graphs(detector, score, ["pt2"])


def test_a_missing_package_is_named_before_the_run_is_read(pristine, tmp_path, monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"model\.onnx needs onnx, .*pip install 'gan-ray\[onnx"):
        export(tmp_path / "no-run", tmp_path / "bundle", formats="onnx")


@needs_onnx
def test_verify_passes_over_what_it_has_no_package_for(bundles, monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    report = verify(bundles)
    assert list(report["replayed"]) == ["weights.safetensors"]
    assert "needs onnxruntime, which is not installed" in report["not_replayed"]["model.onnx"]


@needs_onnx
def test_a_file_that_is_no_graph_is_told_so(forge):
    with pytest.raises(ArtifactError, match=r"model\.onnx cannot be loaded .*export the bundle"):
        verify(forge({"model.onnx": b"no graph"}))


def test_what_torch_cannot_trace_is_one_error(monkeypatch):
    class Fickle(Toy):
        """Looks at the pixels to decide what to do."""

        def evidence(self, images, classes=None):
            return super().evidence(images if images.mean().item() > 0 else -images)

    detector = toy(Fickle)
    with pytest.raises(ArtifactError, match="toy cannot be traced as a graph with torch"):
        write_graphs(detector, make_score(ScoreConfig(), detector), ["pt2"])
