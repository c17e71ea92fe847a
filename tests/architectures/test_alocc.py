from typing import Any

import numpy as np
import pytest
import torch

from gan_ray import experiment
from gan_ray.architectures.alocc import ALOCC, ALOCCConfig
from gan_ray.config import ScoreConfig, from_dict
from gan_ray.detector import Batch, Evidence, ImageSpec
from gan_ray.errors import ConfigError
from gan_ray.scoring.scores import make_score
from gan_ray.training.run import RunFolder
from gan_ray.training.session import run_session


def small(size: int = 16, channels: int = 1, **model: Any) -> ALOCC:
    torch.manual_seed(0)
    config = from_dict(ALOCCConfig, {"width": 4, **model})
    return ALOCC(config, ImageSpec(size, channels))


def images(rows: int = 4, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(rows, 1, size, size, generator=generator) * 2 - 1


def losses(detector: ALOCC, step: str, x: torch.Tensor) -> dict[str, float]:
    (stage,) = detector.stages()
    loss = next(known.loss for known in stage.steps if known.name == step)
    with torch.no_grad():
        return {name: term.item() for name, term in loss(Batch({"normal": x}, seed=3)).items()}


def sides(network: torch.nn.Sequential, x: torch.Tensor) -> list[int]:
    """Sides of the maps behind each convolution."""
    found = []
    for layer in network:
        x = layer(x)
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            found.append(x.shape[-1])
    return found


def sigmoid(logits: torch.Tensor) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.double().numpy()))


# The table of the public code (design, section 2.1).
@pytest.mark.parametrize(
    ("size", "refiner", "discriminator"),
    [
        (28, [14, 7, 4, 7, 14, 28], [14, 7, 4, 2]),
        (45, [23, 12, 6, 12, 23, 45], [23, 12, 6, 3]),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_variant_small_is_the_public_code_layer_by_layer(size, refiner, discriminator, channels):
    model = ALOCC.variants["small"]["model"]
    detector = ALOCC(from_dict(ALOCCConfig, model), ImageSpec(size, channels)).eval()
    image = torch.zeros(1, channels, size, size)
    networks = detector.networks
    assert sides(networks["refiner"].layers, image) == refiner
    assert sides(networks["discriminator"].features, image) == discriminator
    convolutions = [m for m in networks["refiner"].modules() if hasattr(m, "out_channels")]
    assert [m.out_channels for m in convolutions] == [32, 64, 128, 32, 16, channels]
    convolutions = [m for m in networks["discriminator"].modules() if hasattr(m, "out_channels")]
    assert [m.out_channels for m in convolutions] == [16, 32, 64, 128, 1]
    assert networks["discriminator"].head.weight[0].numel() == 128 * discriminator[-1] ** 2


def test_default_is_the_paper_layer_by_layer():
    with torch.device("meta"):
        detector = ALOCC(ALOCCConfig(), ImageSpec(64, 3))
    refiner, discriminator = (
        [m.out_channels for m in detector.networks[name].modules() if hasattr(m, "out_channels")]
        for name in ("refiner", "discriminator")
    )
    assert refiner == [64, 128, 256, 512, 256, 128, 64, 3]
    assert discriminator == [64, 128, 256, 512, 1]
    kernels = {m.kernel_size for m in detector.modules() if hasattr(m, "kernel_size")}
    assert kernels == {(5, 5), (4, 4)}, "4 x 4 is the linear layer over the last map"


@pytest.mark.parametrize("size", [16, 28, 30, 32, 45, 64, 100, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", [3, 4])
def test_evidence_has_the_shapes_of_image_and_logits(size, channels, depth):
    detector = small(size, channels, width=2, depth=depth).eval()
    with torch.no_grad():
        evidence = detector.evidence(torch.rand(2, channels, size, size) * 2 - 1)
    assert evidence.reconstruction.shape == (2, channels, size, size)
    assert evidence.reconstruction.abs().max() <= 1
    assert {k: v.shape for k, v in evidence.logits.items()} == dict.fromkeys(
        ("image", "reconstruction"), (2,)
    )


def test_code_is_at_most_four_pixels_wide_at_every_size_and_channels_stop_at_the_cap():
    for size in (28, 45, 64, 128, 256):
        with torch.device("meta"):
            networks = ALOCC(ALOCCConfig(), ImageSpec(size, 1)).networks
            maps = networks["discriminator"].features(torch.zeros(2, 1, size, size))
        assert maps.shape[1] == 512
        assert maps.shape[2] <= 4


def test_an_image_too_small_to_halve_four_times_is_refused():
    with pytest.raises(ConfigError, match=r"--data\.image-size"):
        small(15)


def test_discrimination_is_the_sum_of_both_cross_entropies():
    detector, x = small(), images()
    with torch.no_grad():
        refined = detector.networks["refiner"](detector._noised(Batch({"normal": x}, seed=3)))
        real, fake = (sigmoid(detector._judge(each)) for each in (x, refined))
    expected = -(np.log(real).mean() + np.log(1 - fake).mean())
    assert losses(detector, "discriminator", x) == pytest.approx(
        {"discrimination": expected}, rel=1e-5
    )


@pytest.mark.parametrize(("refinement", "distance"), [("squared", np.square), ("absolute", np.abs)])
def test_refiner_is_judged_real_and_its_target_is_the_clean_image(refinement, distance):
    detector, x = small(refinement=refinement, noise=0.5), images()
    with torch.no_grad():
        noised = detector._noised(Batch({"normal": x}, seed=3))
        refined = detector.networks["refiner"](noised)
        fake = sigmoid(detector._judge(refined))
    terms = losses(detector, "refiner", x)
    assert terms == pytest.approx(
        {
            "adversarial": -np.log(fake).mean(),
            "refinement": distance((x - refined).numpy()).mean(),
        },
        rel=1e-5,
    )
    noisy_target = distance((noised - refined).numpy()).mean()
    assert terms["refinement"] != pytest.approx(noisy_target, rel=1e-2)


def test_noise_is_sigma_times_the_draw_clipped_and_fresh_each_time():
    detector = small(noise=0.155)
    grey, bright = torch.zeros(64, 1, 16, 16), torch.ones(64, 1, 16, 16)
    batch = Batch({"normal": grey}, seed=3)
    first, second = detector._noised(batch), detector._noised(batch)
    assert first.std().item() == pytest.approx(0.155, rel=0.02)
    assert not torch.equal(first, second)
    assert torch.equal(first, 0.155 * Batch({"normal": grey}, seed=3).gaussian(1, 16, 16))
    clipped = detector._noised(Batch({"normal": bright}, seed=3))
    assert clipped.max() == 1
    assert (clipped == 1).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert torch.equal(small(noise=0.0)._noised(batch), grey)


@pytest.mark.parametrize("refiner_steps", [1, 2, 3])
def test_discriminator_steps_once_and_then_the_refiner_repeatedly(refiner_steps):
    (stage,) = small(refiner_steps=refiner_steps).stages()
    assert [step.name for step in stage.steps] == ["discriminator"] + ["refiner"] * refiner_steps


def test_discriminator_step_builds_no_refiner_graph():
    detector = small()
    detector._discriminator_loss(Batch({"normal": images()}))["discrimination"].backward()
    reached = {n.split(".")[1] for n, p in detector.named_parameters() if p.grad is not None}
    assert reached == {"discriminator"}


def test_scores_are_the_negated_logits_of_the_image_and_of_the_refined_image():
    evidence = Evidence(
        reconstruction=torch.zeros(2, 1, 2, 2),
        logits={"image": torch.tensor([3.0, -1.0]), "reconstruction": torch.tensor([0.5, -2.0])},
    )
    x = torch.tensor([0.0, 0.6]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    scored = {
        name: make_score(ScoreConfig(name=name), ALOCC)(x, evidence)
        for name in ("", "occ1", "occ2", "residual_squared")
    }
    assert scored["occ1"].score.tolist() == [-3.0, 1.0]
    assert scored["occ2"].score.tolist() == [-0.5, 2.0]
    assert scored[""].score.tolist() == scored["occ2"].score.tolist()
    assert scored["residual_squared"].score.tolist() == pytest.approx([0, 0.36])
    assert scored["occ2"].map[1].unique().tolist() == pytest.approx([0.6])
    assert set(scored["occ2"].parts) == {"judged_image", "judged_reconstruction"}


def test_evidence_judges_the_clean_image_and_what_the_refiner_makes_of_it():
    detector, x = small().eval(), images()
    with torch.no_grad():
        evidence = detector.evidence(x)
        refined = detector.networks["refiner"](x)
        torch.testing.assert_close(evidence.reconstruction, refined)
        judged = detector.networks["discriminator"](torch.cat([x, refined])).flatten()
    torch.testing.assert_close(evidence.logits["image"], judged[:4])
    torch.testing.assert_close(evidence.logits["reconstruction"], judged[4:])


def test_denoising_error_is_the_mean_square_to_the_clean_image_for_each_held_out_one():
    detector, x = small(noise=0.5).eval(), images()
    with torch.no_grad():
        refined = detector.networks["refiner"](detector._noised(Batch({"normal": x}, seed=3)))
        error = detector.held_out(Batch({"normal": x}, seed=3))["denoising_error"]
    expected = np.square((x - refined).numpy()).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(error.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("images", "error", "ends"),
    [(999, 0.0, False), (1000, 0.019, True), (1000, 0.02, False), (5000, float("nan"), False)],
)
def test_training_ends_below_rho_but_not_before_the_least_number_of_images(images, error, ends):
    (stage,) = small(rho=0.02, min_images=1000).stages()
    assert stage.until({"images": images, "val/denoising_error": error}) is ends


def digits(**model: Any) -> Any:
    changes = {
        "model": {"width": 8, "min_images": 0, "refiner_optimizer": {"lr": 2e-3}, **model},
        "data": {"source": "digits", "normal_class": 1},
        "train": {"images": 960, "batch_size": 16, "report_every": 96, "samples": 0},
    }
    return experiment.make("alocc", preset="tiny", changes=changes)


def rows(run: RunFolder) -> list[dict[str, Any]]:
    clock = ("seconds", "images_per_second", "look_seconds")
    return [{k: v for k, v in row.items() if k not in clock} for row in run.metrics()]


def weights(run: RunFolder) -> dict[int, bytes]:
    names = {images: f"checkpoints/{images:012d}/tensors.safetensors"
             for images in run.checkpoints()}  # fmt: skip
    return {images: run.store.get(name) for images, name in names.items()}


def trained(folder: Any, settings: Any) -> RunFolder:
    run = RunFolder(folder)
    run.claim(settings)
    run_session(settings, run)
    return run


@pytest.fixture(scope="module")
def unlimited(tmp_path_factory) -> RunFolder:
    return trained(tmp_path_factory.mktemp("unlimited"), digits(rho=0.0))


@pytest.fixture(scope="module")
def rho(unlimited) -> float:
    """A bound that the fourth of ten reports is the first to keep."""
    errors = [row["val/denoising_error"] for row in rows(unlimited)]
    assert min(errors[:3]) > errors[3]
    return float(min(errors[:3]) + errors[3]) / 2


def test_rho_0_spends_the_whole_budget(unlimited):
    assert rows(unlimited)[-1]["images"] == 960


def test_a_run_ends_when_its_refiner_denoises_well_enough(tmp_path, unlimited, rho):
    run = trained(tmp_path, digits(rho=rho))
    assert rows(run) == rows(unlimited)[:4]
    assert [row["val/denoising_error"] < rho for row in rows(run)] == [False, False, False, True]
    before = weights(run)
    run_session(run.experiment(), run)
    assert rows(run) == rows(unlimited)[:4]
    assert weights(run) == before, "going on after the end changes nothing"


def test_a_run_does_not_end_before_its_least_number_of_images(tmp_path, unlimited):
    run = trained(tmp_path, digits(rho=1e9, min_images=200))
    assert rows(run) == rows(unlimited)[:3]


@pytest.mark.parametrize("reports", [2, 3, 4])
def test_a_run_killed_around_its_end_equals_one_that_never_stopped(tmp_path, rho, reports):
    class Killed(Exception):
        pass

    settings = digits(rho=rho)
    whole = trained(tmp_path / "whole", settings)
    run = RunFolder(tmp_path / "killed")
    run.claim(settings)
    seen: list[int] = []

    def kill(row: dict[str, Any], key: str | None) -> None:
        seen.append(row["images"])
        if len(seen) == reports:
            raise Killed

    with pytest.raises(Killed):
        run_session(settings, run, on_report=kill)
    assert len(rows(run)) == reports
    run_session(settings, run)
    assert rows(run) == rows(whole)
    assert weights(run) == weights(whole)
