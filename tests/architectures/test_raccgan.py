import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from gan_ray.architectures.raccgan import RACCGAN, RACCGANConfig
from gan_ray.blocks.attention import CBAM
from gan_ray.config import from_dict, merge, to_dict
from gan_ray.detector import Batch, ImageSpec
from gan_ray.errors import ConfigError
from gan_ray.losses.penalties import gradient_penalty

CLASSES = torch.tensor([2, 0, 1, 1])
PUBLISHED = RACCGAN.variants["published"]["model"]


def build(size: int = 16, channels: int = 1, classes: int = 3, **changes) -> RACCGAN:
    """A tiny detector whose weights are the same at each call."""
    plain = merge(to_dict(RACCGANConfig(width=4, z_chunk=4, class_size=8)), changes)
    torch.manual_seed(0)
    return RACCGAN(from_dict(RACCGANConfig, plain), ImageSpec(size, channels, classes))


def images(rows: int = 4, size: int = 16, channels: int = 1, dtype=torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(rows, channels, size, size, generator=generator, dtype=dtype) * 2 - 1


def batch(dtype=torch.float32) -> Batch:
    return Batch({"normal": images(dtype=dtype), "class": CLASSES}, seed=3)


def step_of(detector: RACCGAN, name: str):
    return next(s for stage in detector.stages() for s in stage.steps if s.name == name)


def take(detector: RACCGAN, name: str, **weights: float) -> None:
    """One optimiser step as the loop takes it: stage modes, gradients for `trains` only."""
    step = step_of(detector, name)
    stage = next(stage for stage in detector.stages() if step in stage.steps)
    for key, network in detector.networks.items():
        network.train(key in stage.trains).requires_grad_(key in step.trains)
    parameters = [p for key in step.trains for p in detector.networks[key].parameters()]
    terms = step.loss(batch())
    sum(weights.get(k, detector.weights[k]) * term for k, term in terms.items()).backward()
    torch.optim.SGD(parameters, lr=0.1).step()


def state(detector: RACCGAN, *names: str) -> dict[str, torch.Tensor]:
    """Parameters and buffers of networks, copied."""
    tensors = detector.networks.state_dict().items()
    return {key: value.clone() for key, value in tensors if key.startswith(names)}


def same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, after[key]) for key, value in before.items())


# Published sizes (design, section 5: counted on a rebuild of the public networks).
@pytest.mark.parametrize(
    ("image", "changes", "counts"),
    [
        (ImageSpec(128, 3, 2), {}, (11_732_035, 11_089_669, 16_438_968)),
        (
            ImageSpec(32, 1, 10),
            {"width": 64, "z_chunk": 32, "last_kernel": 3, "critic_pool": "flatten"},
            (776_449, 357_965, 940_160),
        ),
    ],
)
def test_published_form_has_the_published_number_of_parameters(image, changes, counts):
    with torch.device("meta"):
        detector = RACCGAN(RACCGANConfig(**{**PUBLISHED, **changes}), image)
    found = [sum(p.numel() for p in network.parameters()) for network in detector.networks.values()]
    assert found == list(counts)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "code"), [(16, 12), (28, 12), (32, 16), (64, 20)])
def test_networks_fit_every_size_of_the_ladder(size, code, channels):
    detector, pictures = build(size, channels).eval(), images(2, size, channels)
    with torch.no_grad():
        found = detector.networks["encoder"](pictures, CLASSES[:2])
        judged = detector.networks["critic"](pictures, CLASSES[:2])
        drawn = detector.networks["generator"](found, CLASSES[:2])
    assert (found.shape, judged.shape, drawn.shape) == ((2, code), (2,), pictures.shape)
    assert detector.latent.size == code


@pytest.mark.parametrize("size", [4, 30, 100])
def test_sizes_that_cannot_be_halved_to_the_root_are_refused(size):
    with pytest.raises(ConfigError, match="image-size"):
        build(size)


@pytest.mark.parametrize(
    ("attention", "gated"),
    [
        ("none", set()),
        ("generator", {"generator"}),
        ("critic", {"critic"}),
        ("all", {"generator", "critic", "encoder"}),
    ],
)
def test_attention_follows_the_last_two_blocks_where_it_was_asked_for(attention, gated):
    networks = build(32, attention=attention).networks
    for name, network in networks.items():
        places = [isinstance(block.attention, CBAM) for block in network.blocks]
        wanted = [name in gated and place >= len(places) - 2 for place in range(len(places))]
        assert places == wanted


def test_dense_weights_start_orthogonal_and_depthwise_filters_keep_their_norm():
    for network in build(32, width=32, z_chunk=16).networks.values():
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1:
                norms = layer.weight.flatten(1).norm(dim=1)
                assert 0.5 < norms.mean().item() < 2, name
            elif isinstance(layer, (nn.Conv2d, nn.Linear, nn.Embedding)):
                values = torch.linalg.svdvals(layer.weight.flatten(1))
                torch.testing.assert_close(values / values[0], torch.ones_like(values))


def test_spectral_norm_is_where_it_was_published():
    networks = build(32, conditioning="projection_scalar").networks
    bounded = {key.split(".parametrizations")[0] for key in networks.state_dict() if "._u" in key}
    wanted = {"generator.head", "critic.head.linear", "critic.head.embedding"}
    wanted |= {"encoder.head.embedding"}
    for place in range(3):
        wanted |= {f"generator.blocks.{place}.norm_{side}.{kind}"
                   for side in ("in", "out") for kind in ("scale", "shift")}  # fmt: skip
    assert bounded == wanted | {f"generator.blocks.{place}.shortcut" for place in (1, 2)}


def test_each_block_of_the_generator_has_its_chunk_and_all_know_the_class():
    generator = build(32).networks["generator"].eval()
    seen: dict[int, torch.Tensor] = {}
    for place, block in enumerate(generator.blocks):
        block.register_forward_hook(lambda _, given, __, place=place: seen.update({place: given}))
    codes = torch.randn(4, 16)
    generator(codes, CLASSES)
    kind = generator.embedding(CLASSES)
    torch.testing.assert_close(seen[0][0].flatten(1), generator.stem(codes[:, :4]))
    for place, (_, condition) in seen.items():
        chunk = codes[:, 4 * place + 4 : 4 * place + 8]
        torch.testing.assert_close(condition, torch.cat([kind, chunk], 1))


def test_generated_images_use_both_signs_and_do_not_pile_up_at_zero():
    detector = build()
    with torch.no_grad():
        drawn = detector.draw(torch.randn(16, 12))
    assert drawn.min() < -0.1
    assert drawn.max() > 0.1
    assert (drawn == 0).float().mean() < 0.01


@pytest.mark.parametrize("norm", ["none", "layer", "plain_instance"])
@pytest.mark.parametrize("training", [True, False])
def test_critic_judges_each_image_by_itself(norm, training):
    critic = build(norm=norm).networks["critic"].train(training)
    pictures = images().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(pictures, CLASSES)[1], pictures)
    assert not gradient[[0, 2, 3]].any()
    assert gradient[1].any()


def test_critic_head_projects_the_summed_last_map_on_the_class():
    critic = build().eval().networks["critic"]
    with torch.no_grad():
        f = critic.maps(images()).numpy().sum((2, 3))
        w, b = critic.head.linear.weight.numpy()[0], critic.head.linear.bias.numpy()[0]
        e = critic.head.embedding.weight.numpy()[CLASSES]
        np.testing.assert_allclose(
            critic(images(), CLASSES).numpy(), f @ w + b + (e * f).sum(1), rtol=1e-5, atol=1e-5
        )


# Golden values: the equations in numpy, fed with what the networks answer.
def test_critic_terms_are_those_of_wgan_gp_at_the_class_of_each_image():
    detector, draws, dtype = build().double().eval(), batch(torch.float64), torch.float64
    critic, real = detector.networks["critic"], draws["normal"]
    with torch.no_grad():
        fake = detector.networks["generator"](draws.gaussian(12), CLASSES)
        mix = draws.uniform().numpy()
        judged = [critic(x, CLASSES).numpy().mean() for x in (fake, real)]
        penalty = 0.0
        for one, other, share, kind in zip(real, fake, mix, CLASSES, strict=True):
            point, nudge = share * one + (1 - share) * other, 1e-6
            nudges = nudge * torch.eye(256, dtype=dtype).view(256, 1, 16, 16)
            rises = critic(point + nudges, kind.expand(256)) - critic(
                point - nudges, kind.expand(256)
            )
            penalty += (np.linalg.norm(rises.numpy() / (2 * nudge)) - 1) ** 2 / len(real)
    terms = step_of(detector, "critic").loss(batch(dtype))
    assert terms.keys() == {"discrimination", "gradient_penalty"}
    assert terms["discrimination"].item() == pytest.approx(judged[0] - judged[1], rel=1e-9)
    assert terms["gradient_penalty"].item() == pytest.approx(penalty, rel=1e-4)


def test_penalty_of_a_linear_critic_of_each_class_is_its_distance_from_slope_one():
    weights = torch.randn(3, 256).double()
    real, fake = images(dtype=torch.float64), -images(dtype=torch.float64)

    def critic(pictures: torch.Tensor) -> torch.Tensor:
        return (weights[CLASSES] * pictures.flatten(1)).sum(1)

    wanted = ((weights[CLASSES].norm(dim=1) - 1) ** 2).mean()
    found = gradient_penalty(critic, real, fake, torch.rand(4))
    assert found.item() == pytest.approx(wanted.item())


def test_generator_term_is_minus_the_mean_judgement_at_the_classes_of_the_batch():
    detector = build().double().eval()
    with torch.no_grad():
        fake = detector.networks["generator"](batch(torch.float64).gaussian(12), CLASSES)
        wanted = -detector.networks["critic"](fake, CLASSES).numpy().mean()
    terms = step_of(detector, "generator").loss(batch(torch.float64))
    assert terms.keys() == {"adversarial"}
    assert terms["adversarial"].item() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("features", ["spatial", "pooled"])
@pytest.mark.parametrize("conditioning", ["concat", "film", "projection_scalar"])
def test_encoder_terms_are_mean_squares_over_pixels_and_over_features(features, conditioning):
    detector = build(features=features, conditioning=conditioning).double().eval()
    x = images(dtype=torch.float64)
    with torch.no_grad():
        code = detector.networks["encoder"](x, CLASSES)
        x_hat = detector.networks["generator"](code, CLASSES)
        f, f_hat = (detector.networks["critic"].maps(i).numpy() for i in (x, x_hat))
        terms = step_of(detector, "encoder").loss(batch(torch.float64))
    if features == "pooled":
        f, f_hat = f.mean((2, 3)), f_hat.mean((2, 3))
    image = ((x - x_hat).numpy() ** 2).sum() / (4 * 256)
    assert terms["image"].item() == pytest.approx(image, rel=1e-9)
    assert terms["features"].item() == pytest.approx(((f - f_hat) ** 2).mean(), rel=1e-9)
    assert code.abs().max() < 1


def test_every_weight_belongs_to_a_term():
    terms = [set(s.loss(batch())) for stage in build().stages() for s in stage.steps]
    assert {f.name for f in dataclasses.fields(RACCGANConfig().weights)} == set.union(*terms)


def test_critic_step_builds_no_generator_graph_and_leaves_its_weights():
    detector = build()
    detector.networks.requires_grad_(True)
    sum(step_of(detector, "critic").loss(batch()).values()).backward()
    assert all(p.grad is None for p in detector.networks["generator"].parameters())
    before = {k: p.clone() for k, p in detector.networks["generator"].named_parameters()}
    take(detector, "critic")
    assert same(before, dict(detector.networks["generator"].named_parameters()))


def test_encoder_step_changes_no_bit_of_generator_critic_and_their_buffers():
    detector = build()
    frozen, encoder = state(detector, "generator", "critic"), state(detector, "encoder")
    take(detector, "encoder")
    assert same(frozen, state(detector, "generator", "critic"))
    assert not same(encoder, state(detector, "encoder"))


def test_feature_term_alone_reaches_the_encoder_from_its_stem_to_its_classes():
    # The public code of related systems detaches the reconstruction and so trains nothing here.
    detector = build()
    take(detector, "encoder", image=0.0)
    gradients = {k: p.grad for k, p in detector.networks["encoder"].named_parameters()}
    assert all(gradients[k].any() for k in ("stem.weight", "head.linear.weight"))
    assert gradients["head.embedding.weight"].any()


def shades() -> torch.Tensor:
    """Images from black to white, different enough for their classes to differ."""
    shade = torch.linspace(-1, 1, 16, dtype=torch.float64).view(-1, 1, 1, 1)
    return images(16, dtype=torch.float64) * (1 - shade.abs()) + shade


def policy(name: str, **changes) -> RACCGAN:
    detector = build(label_policy=name, **changes).double().eval()
    with torch.no_grad():  # classes far enough apart for a choice to matter
        detector.networks["generator"].embedding.weight.mul_(20)
    return detector


def of_class(detector: RACCGAN, x: torch.Tensor, kind: int):
    """A(x|y) by the equation, with reconstruction and features, one image at a time."""
    y, critic = torch.tensor([kind]), detector.networks["critic"]
    x_hat = detector.networks["generator"](detector.networks["encoder"](x[None], y), y)
    f, f_hat = critic.maps(x[None]).flatten(1), critic.maps(x_hat).flatten(1)
    kappa = detector.config.weights.features
    return ((x - x_hat) ** 2).mean() + kappa * ((f - f_hat) ** 2).mean(), x_hat, f, f_hat


@pytest.mark.parametrize("kappa", [0.01, 100.0])
def test_min_takes_the_class_of_the_smallest_distance(kappa):
    detector, x = policy("min", weights={"features": kappa}), shades()
    chosen = set()
    with torch.no_grad():
        evidence = detector.evidence(x)
        for row, image in enumerate(x):
            found = [of_class(detector, image, kind) for kind in range(3)]
            best = int(np.argmin([distance for distance, *_ in found]))
            chosen.add(best)
            _, x_hat, f, f_hat = found[best]
            torch.testing.assert_close(evidence.reconstruction[row : row + 1], x_hat)
            torch.testing.assert_close(evidence.features["critic"][0][row : row + 1], f)
            torch.testing.assert_close(evidence.features["critic"][1][row : row + 1], f_hat)
    assert len(chosen) > 1, "one class for all would not show a wrong choice"
    assert evidence.offers == RACCGAN.offers


def test_predict_takes_the_class_that_the_critic_prefers():
    detector, x = policy("predict"), shades()
    critic = detector.networks["critic"]
    with torch.no_grad():
        judged = [critic(x, torch.full((16,), kind)).numpy() for kind in range(3)]
        best = np.argmax(judged, axis=0)
        found = detector.evidence(x).reconstruction
        wanted = [of_class(detector, i, int(kind))[1] for i, kind in zip(x, best, strict=True)]
    torch.testing.assert_close(found, torch.cat(wanted))
    assert len(set(best)) > 1


def test_known_takes_the_class_it_is_given_and_asks_for_it():
    detector, x = policy("known"), images(dtype=torch.float64)
    with torch.no_grad():
        found = detector.evidence(x, CLASSES).reconstruction
        wanted = [of_class(detector, i, int(y))[1] for i, y in zip(x, CLASSES, strict=True)]
        torch.testing.assert_close(found, torch.cat(wanted))
        with pytest.raises(ConfigError, match="no classes were given"):
            detector.evidence(x)


@pytest.mark.parametrize("name", ["min", "predict"])
def test_classes_change_nothing_where_pixels_decide(name):
    detector, x = policy(name), images(dtype=torch.float64)
    with torch.no_grad():
        plain, given = detector.evidence(x), detector.evidence(x, CLASSES)
    assert torch.equal(plain.reconstruction, given.reconstruction)
    assert not detector.conditional
    assert policy("known").conditional


@pytest.mark.parametrize("name", ["min", "predict"])
def test_evidence_of_an_image_does_not_depend_on_its_neighbours(name):
    detector, x = policy(name), shades()
    order = torch.randperm(16)
    with torch.no_grad():
        whole, alone, mixed = (detector.evidence(i) for i in (x, x[5:6], x[order]))
    for one, other, third in zip(
        (whole.reconstruction, *whole.features["critic"]),
        (alone.reconstruction, *alone.features["critic"]),
        (mixed.reconstruction, *mixed.features["critic"]),
        strict=True,
    ):
        torch.testing.assert_close(one[5:6], other)
        torch.testing.assert_close(one[order], third)


def test_cost_of_a_look_grows_with_the_classes_that_are_tried():
    costs = {(name, k): build(label_policy=name, classes=k).passes_per_image
             for name in ("min", "predict", "known") for k in (1, 5)}  # fmt: skip
    assert costs == {("min", 1): 4, ("min", 5): 12, ("predict", 1): 4, ("predict", 5): 4,
                     ("known", 1): 4, ("known", 5): 4}  # fmt: skip


def test_drawing_takes_class_zero_where_none_is_given():
    detector, codes = build().eval(), torch.randn(4, 12)
    with torch.no_grad():
        plain = detector.draw(codes)
        assert torch.equal(plain, detector.draw(codes, torch.zeros(4, dtype=torch.int64)))
        assert not torch.equal(plain, detector.draw(codes, torch.ones(4, dtype=torch.int64)))


def test_generator_waits_for_n_critic_critic_steps():
    gan, encoder = build(n_critic=3).stages()
    assert {step.name: step.every for step in gan.steps} == {"critic": 1, "generator": 3}
    assert (gan.scores, encoder.scores) == (False, True)
    rates = {step.name: step.optimizer.lr for step in (*gan.steps, *encoder.steps)}
    assert rates == {"critic": 4e-4, "generator": 1e-4, "encoder": 1e-4}
