import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from gan_ray.architectures.funetgan import FUNetGAN, FUNetGANConfig, Generator
from gan_ray.blocks.attention import CBAM
from gan_ray.blocks.unet import UNetCritic, UNetEncoder
from gan_ray.config import from_dict, merge, to_dict
from gan_ray.detector import Batch, ImageSpec
from gan_ray.losses.consistency import cutmix_mask, symmetric_beta

FOUR = ("residual_attention", "residual", "convolutional_attention", "convolutional")


def build(size: int = 16, channels: int = 1, **changes) -> FUNetGAN:
    """A tiny detector whose weights are the same at each call."""
    plain = merge(to_dict(FUNetGANConfig(width=4, latent_size=8)), changes)
    torch.manual_seed(0)
    return FUNetGAN(from_dict(FUNetGANConfig, plain), ImageSpec(size, channels))


def exact(**changes) -> FUNetGAN:
    return build(**changes).double().eval()


def rows(count: int = 4, size: int = 16, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, channels, size, size, generator=generator).double() * 2 - 1


def batch(progress: float = 1.0, *, size: int = 16, rank: int = 0, world: int = 1) -> Batch:
    part = slice(4 * rank // world, 4 * (rank + 1) // world)
    return Batch(
        {"normal": rows(size=size)[part]}, seed=3, rank=rank, world=world, progress=progress
    )


def terms_of(detector: FUNetGAN, name: str, given: Batch | None = None) -> dict:
    step = next(s for stage in detector.stages() for s in stage.steps if s.name == name)
    return dict(step.loss(given or batch()))


def take(detector: FUNetGAN, name: str, *terms: str) -> None:
    """One step as the loop takes it, by some terms or all: stage modes, gradients for `trains`."""
    stage, step = next((a, s) for a in detector.stages() for s in a.steps if s.name == name)
    for key, network in detector.networks.items():
        network.train(key in stage.trains).requires_grad_(key in step.trains)
    found = step.loss(Batch({"normal": rows().float()}, seed=3, progress=1.0))
    sum(detector.weights[k] * found[k] for k in terms or found).backward()
    parameters = [p for key in step.trains for p in detector.networks[key].parameters()]
    torch.optim.SGD(parameters, lr=0.1).step()


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# Published sizes (design, section 5: counted on a rebuild of the authors' networks).
def test_reference_form_has_the_published_number_of_parameters():
    widths, gates = (64, 128, 256, 512, 1024, 1024), partial(CBAM, norm=True)
    with torch.device("meta"):
        counts = [
            count(network)
            for network in (
                Generator(
                    3, widths, 4, latent_size=100, norm="plain_instance", attention=(gates,) * 5
                ),
                UNetCritic(3, widths[:5], norm="plain_instance", attention=gates),
                UNetCritic(3, widths[:5], norm="plain_instance"),
                UNetEncoder(3, widths, 4, 100, norm="plain_instance"),
            )
        ]
    assert counts == [31_859_379, 33_301_106, 33_123_906, 41_069_028]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("size", "widest", "root", "smallest"),
    [(16, 4, 4, 4), (28, 4, 7, 7), (32, 4, 4, 8), (64, 8, 4, 8), (128, 16, 4, 8), (256, 16, 4, 8)],
)
def test_networks_fit_every_size_of_the_ladder(size, channels, widest, root, smallest):
    detector, images = build(size, channels, width=2).eval(), rows(2, size, channels).float()
    critic, (body, _) = detector.networks["critic"], detector.networks["encoder"]
    sides = []
    critic.down[-1].register_forward_hook(lambda *seen: sides.append(seen[-1].shape[-1]))
    with torch.no_grad():
        evidence, seen = detector.evidence(images), critic(images)
    assert evidence.reconstruction.shape == images.shape
    assert body.head.in_features == 2 * widest * root**2
    assert sides == [smallest] * 2
    assert [tuple(part.shape) for part in (seen.whole, seen.pixels)] == [(2,), (2, 1, size, size)]
    assert [f.shape for f in evidence.features["pixel"]] == [(2, 2, size, size)] * 2
    assert [f.shape for f in evidence.features["global"]] == [
        (2, critic.global_head.in_features)
    ] * 2


def test_the_four_variants_differ_in_the_two_switches_only():
    names, shapes = {}, {}
    for variant in FOUR:
        found = build(**FUNetGAN.variants[variant]["model"]).networks.state_dict()
        names[variant] = set(found)
        for key, value in found.items():
            assert shapes.setdefault(key, value.shape) == value.shape
    full, rest = names["residual_attention"], names["convolutional"]
    shortcuts = {key for key in full if key.startswith("critic.") and ".shortcut." in key}
    gates = {key for key in full if ".attention." in key}
    assert shortcuts
    assert {key.split(".")[0] for key in gates} == {"critic", "encoder"}
    assert names["residual"] == full - gates
    assert names["convolutional_attention"] == full - shortcuts
    assert rest == full - gates - shortcuts


def test_default_is_the_headline_variant():
    plain = to_dict(FUNetGANConfig())
    assert merge(plain, FUNetGAN.variants["residual_attention"]["model"]) == plain


def test_gates_of_the_critic_have_no_batch_norm():
    critic, generator = (build().networks[name] for name in ("critic", "generator"))
    assert any(isinstance(m, CBAM) for m in critic.modules())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in critic.modules())
    assert sum(isinstance(m, CBAM) for m in generator.modules()) == 2


@pytest.mark.parametrize(("where", "gated"), [("none", []), ("last2", [1, 2]), ("all", [0, 1, 2])])
def test_gates_follow_the_chosen_blocks_of_the_generator(where, gated):
    blocks = build(32, generator_attention=where).networks["generator"].blocks
    assert [i for i, (_, gates) in enumerate(blocks) if isinstance(gates, CBAM)] == gated


def test_weights_start_orthogonal_and_spectral_norm_is_on_the_published_layers():
    networks = build(32, width=8).networks
    bounded = set()
    for name, weight in networks.named_parameters():
        if name.endswith("weight.original") or name.endswith("head.weight"):
            matrix = weight.detach().flatten(1).double()
            gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
            torch.testing.assert_close(gram, torch.eye(len(gram)).double(), atol=1e-5, rtol=0)
        if name.endswith("weight.original"):
            bounded.add(name.removesuffix(".parametrizations.weight.original"))
    layers = {
        name
        for name, module in networks.named_modules()
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear))
    }
    assert bounded < layers
    free = {"generator.head", "critic.pixel_head"}
    assert {n for n in layers - bounded if ".squeeze" not in n and ".excite" not in n} - free == {
        n for n in layers if n.endswith((".conv",))
    }
    free_critic = build(spectral_norm=False).networks["critic"]
    assert not any("original" in key for key in free_critic.state_dict())


def test_generated_images_use_both_signs_and_do_not_pile_up_at_zero():
    with torch.no_grad():
        images = build().draw(torch.randn(16, 8))
    assert images.min() < -0.1
    assert images.max() > 0.1
    assert (images == 0).float().mean() < 0.01


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_critic_judges_each_image_by_itself_and_sees_its_brightness(norm):
    critic = build(critic_norm=norm).double().train().networks["critic"]
    images = rows().requires_grad_(True)
    for part in critic(images):
        (gradient,) = torch.autograd.grad(part[1].sum(), images, retain_graph=True)
        assert not gradient[[0, 2, 3]].any()
        assert gradient[1].any()
    critic.eval()
    for one, other in zip(critic(images), critic(0.5 * images + 0.3), strict=True):
        assert (one - other).abs().max() > 1e-3 * one.abs().max()


# Golden values: the published equations in numpy, fed with what the networks answer.
def judge(detector: FUNetGAN, images: torch.Tensor, reduction: str = "mean") -> tuple:
    with torch.no_grad():
        seen = detector.networks["critic"](images)
    maps = seen.pixels.numpy()
    total = maps.sum((1, 2, 3))
    return seen.whole.numpy(), total / maps[0].size if reduction == "mean" else total, maps


def penalties(detector: FUNetGAN, points: torch.Tensor, *values) -> list[float]:
    """Central differences at each pixel of each point, for each value of what `judge` gives."""
    pixels, found = points[0].numel(), np.zeros(len(values))
    nudges = 1e-5 * torch.eye(pixels).double().view(pixels, *points.shape[1:])
    for point in points:
        up, down = (judge(detector, point + sign * nudges) for sign in (1, -1))
        slopes = [(value(up) - value(down)) / 2e-5 for value in values]
        found += [(np.sqrt((slope**2).sum()) - 1) ** 2 / len(points) for slope in slopes]
    return found.tolist()


def drawn(detector: FUNetGAN) -> tuple:
    """What the critic's step draws from an 8-pixel batch: real, fake, shares, and the batch."""
    draws = batch(size=8)
    with torch.no_grad():
        fake = detector.networks["generator"](draws.gaussian(8))
    return rows(size=8), fake, draws.uniform().view(4, 1, 1, 1), draws


@pytest.mark.parametrize("mix", ["mixup", "mixup_beta", "cutmix", "none"])
def test_critic_terms_are_the_published_equations(mix):
    detector = exact(size=8, mix=mix, warmup=0.5)
    real, fake, share, draws = drawn(detector)
    (g_real, p_real, map_real), (g_fake, p_fake, map_fake) = (
        judge(detector, images) for images in (real, fake)
    )
    points = share * real + (1 - share) * fake
    on_whole, on_pixels = penalties(detector, points, lambda it: it[0], lambda it: it[1])
    if mix == "mixup_beta":
        share = symmetric_beta(draws, 0.4).view(4, 1, 1, 1)
    elif mix == "cutmix":
        share = cutmix_mask(draws, 8)
    map_mixed = judge(detector, share * real + (1 - share) * fake)[2]
    s = share.numpy()
    wanted = {
        "discrimination_global": g_fake.mean() - g_real.mean(),
        "discrimination_pixel": p_fake.mean() - p_real.mean(),
        "gradient_penalty_global": on_whole,
        "gradient_penalty_pixel": on_pixels,
    }
    if mix != "none":
        inconsistent = ((map_mixed - (s * map_real + (1 - s) * map_fake)) ** 2).sum() / (4 * 64)
        wanted["consistency"] = 0.5 * inconsistent  # a quarter of the stage, half the warm-up
    found = terms_of(detector, "critic", batch(0.25, size=8))
    assert {k: v.item() for k, v in found.items()} == pytest.approx(wanted, rel=1e-5)


def test_summed_penalty_and_summed_maps_are_the_reference_form():
    detector = exact(size=8, penalty="sum", pixel_reduction="sum")
    real, fake, share, _ = drawn(detector)
    points = share * real + (1 - share) * fake
    (penalty,) = penalties(detector, points, lambda it: it[0] + 64 * it[1])
    p_real, p_fake = (judge(detector, images, "sum")[1] for images in (real, fake))
    terms = terms_of(detector, "critic", batch(size=8))
    assert terms["gradient_penalty_sum"].item() == pytest.approx(penalty, rel=1e-5)
    assert terms["discrimination_pixel"].item() == pytest.approx(p_fake.mean() - p_real.mean())


def test_generator_and_encoder_terms_are_the_published_equations():
    detector, x = exact(), rows()
    with torch.no_grad():
        fake = detector.networks["generator"](batch().gaussian(8))
        x_hat = detector.networks["generator"](detector.networks["encoder"](x))
        seen, seen_hat = (detector.networks["critic"](images) for images in (x, x_hat))
        terms = terms_of(detector, "generator") | terms_of(detector, "encoder")
    g, p, _ = judge(detector, fake)
    channels = seen.global_features.shape[1]
    wanted = {
        "adversarial_global": -g.mean(),
        "adversarial_pixel": -p.mean(),
        "image": ((x - x_hat).numpy() ** 2).sum() / (4 * 256),
    }
    for name, size in (("global_features", 4 * channels), ("pixel_features", 4 * 4 * 256)):
        distance = (getattr(seen, name) - getattr(seen_hat, name)).numpy()
        wanted["_".join(name.split("_")[::-1])] = (distance**2).sum() / size
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(wanted, rel=1e-9)


def test_two_ranks_see_together_what_one_sees_alone():
    for mix in ("mixup", "mixup_beta", "cutmix"):
        detector = exact(mix=mix)
        whole = terms_of(detector, "critic")
        parts = [terms_of(detector, "critic", batch(rank=rank, world=2)) for rank in range(2)]
        for name, value in whole.items():
            mean = (parts[0][name] + parts[1][name]) / 2
            torch.testing.assert_close(mean, value, msg=f"{mix}: {name}")


def test_consistency_fades_in_over_the_first_fifth_of_the_stage():
    detector = exact()
    found = [
        terms_of(detector, "critic", batch(p))["consistency"].item() for p in (0, 0.1, 0.2, 0.7)
    ]
    assert found == pytest.approx([0, found[3] / 2, found[3], found[3]])
    assert found[3] > 0
    assert terms_of(exact(warmup=0.0), "critic", batch(0.0))["consistency"] == found[3]


def test_penalties_are_computed_in_float32_under_autocast():
    detector, images = build(), rows().float()
    seen = []
    detector.networks["critic"].register_forward_hook(lambda *io: seen.append(io[-1].pixels.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        terms = terms_of(detector, "critic", Batch({"normal": images}, seed=3))
    assert seen == [torch.bfloat16, torch.float32]
    assert all(term.dtype == torch.float32 for term in terms.values())


def test_critic_step_builds_no_generator_graph():
    detector = build()
    detector.networks.requires_grad_(True)
    sum(terms_of(detector.double(), "critic").values()).backward()
    assert all(p.grad is None for p in detector.networks["generator"].parameters())


def test_generator_step_leaves_the_weights_of_the_critic_untouched():
    detector = build()
    before = {k: p.clone() for k, p in detector.networks["critic"].named_parameters()}
    take(detector, "generator")
    for key, parameter in detector.networks["critic"].named_parameters():
        assert torch.equal(parameter, before[key])
        assert parameter.grad is None


def test_encoder_step_changes_no_bit_of_generator_critic_and_their_buffers():
    detector = build()
    before = {k: v.clone() for k, v in detector.networks.state_dict().items()}
    take(detector, "encoder")
    moved = {
        k.split(".")[0]
        for k, v in detector.networks.state_dict().items()
        if not torch.equal(v, before[k])
    }
    assert moved == {"encoder"}


@pytest.mark.parametrize("term", ["features_global", "features_pixel"])
def test_each_feature_term_alone_reaches_the_encoder(term):
    # The public code detaches the reconstruction here, so that these terms train nothing.
    detector = build()
    take(detector, "encoder", term)
    body, _ = detector.networks["encoder"]
    assert body.head.parametrizations.weight.original.grad.any()
    assert body.stem.parametrizations.weight.original.grad.any()


def test_evidence_is_the_reconstruction_and_the_features_of_both_images():
    detector, images = exact(), rows()
    with torch.no_grad():
        evidence = detector.evidence(images)
        for number, image in enumerate((images, evidence.reconstruction)):
            seen = detector.networks["critic"](image)
            torch.testing.assert_close(evidence.features["global"][number], seen.global_features)
            torch.testing.assert_close(evidence.features["pixel"][number], seen.pixel_features)
    assert evidence.offers == FUNetGAN.offers


def test_codes_are_drawn_by_the_generator():
    detector = exact()
    assert (detector.latent.size, detector.latent.prior) == (8, "normal")
    codes = torch.randn(2, 8).double()
    assert torch.equal(detector.draw(codes), detector.networks["generator"](codes))


def test_every_weight_belongs_to_a_term():
    terms = set(terms_of(exact(penalty="sum"), "critic"))
    for name in ("critic", "generator", "encoder"):
        terms |= set(terms_of(exact(), name))
    assert {field.name for field in dataclasses.fields(FUNetGANConfig().weights)} == terms
