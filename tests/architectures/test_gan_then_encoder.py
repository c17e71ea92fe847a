"""What f-AnoGAN, f-UNetGAN and RA-CCGAN share: a WGAN-GP, then an encoder over its frozen parts."""

from dataclasses import dataclass

import pytest
import torch

from gan_ray import architectures
from gan_ray.config import from_dict, merge, to_dict
from gan_ray.detector import Batch, Detector, ImageSpec, Step, stage_fingerprint

CLASSES = torch.tensor([2, 0, 1, 1])


@dataclass(frozen=True)
class System:
    """One of them at 16 pixels, with settings that concern one of its stages only."""

    name: str
    tiny: dict
    reconstructing: dict
    """Settings under which its encoder has little to learn but to reconstruct."""
    of_encoder: list[dict]
    of_gan: list[dict]

    def build(self, changes: dict | None = None) -> Detector:
        """Give it with the same weights at each call."""
        made = architectures.get(self.name)
        model = merge(merge(to_dict(made.Config()), self.tiny), changes or {})
        torch.manual_seed(0)
        classes = 3 if "class" in made.streams else 1
        return made(from_dict(made.Config, model), ImageSpec(16, 1, classes))


SYSTEMS = [
    System(
        "f-anogan",
        {"width": 4, "latent_size": 8},
        {"latent_bound": "linear", "mode": "izi"},
        of_encoder=[
            {"mode": "ziz"},
            {"latent_bound": "linear"},
            {"encoder_optimizer": {"lr": 1e-3}},
            {"weights": {"features": 9.0}},
        ],
        of_gan=[
            {"weights": {"gradient_penalty": 9.0}},
            {"gan_optimizer": {"lr": 1e-3}},
            {"width": 8},
            {"n_critic": 1},
        ],
    ),
    System(
        "f-unetgan",
        {"width": 4, "latent_size": 8},
        {"latent_bound": "linear", "weights": {"features_global": 0.0, "features_pixel": 0.0}},
        of_encoder=[
            {"latent_bound": "linear"},
            {"encoder_norm": "plain_instance"},
            {"encoder_optimizer": {"lr": 1e-3}},
            {"weights": {"features_pixel": 9.0}},
        ],
        of_gan=[{"weights": {"consistency": 9.0}}, {"attention": "none"}, {"mix": "cutmix"}],
    ),
    System(
        "ra-ccgan",
        {"width": 4, "z_chunk": 4, "class_size": 8},
        {"norm": "none", "weights": {"features": 0.01}},
        of_encoder=[
            {"conditioning": "film"},
            {"label_policy": "predict"},
            {"features": "pooled"},
            {"weights": {"features": 9.0}},
        ],
        of_gan=[
            {"weights": {"gradient_penalty": 9.0}},
            {"attention": "none"},
            {"norm": "none"},
            {"n_critic": 2},
        ],
    ),
]


def cases(which: str) -> list:
    return [
        pytest.param(system, changes, id=f"{system.name}-{'-'.join(changes)}")
        for system in SYSTEMS
        for changes in getattr(system, which)
    ]


every_system = pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)


def rows() -> torch.Tensor:
    return torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def batch(images: torch.Tensor) -> Batch:
    return Batch({"normal": images, "class": CLASSES}, seed=3, progress=1.0)


def step_of(detector: Detector, name: str) -> Step:
    return next(s for stage in detector.stages() for s in stage.steps if s.name == name)


@pytest.mark.parametrize(("system", "changes"), cases("of_encoder"))
def test_settings_of_the_encoder_leave_the_gan_stage_shared(system: System, changes: dict):
    plain, changed = system.build(), system.build(changes)
    assert stage_fingerprint(plain, "gan") == stage_fingerprint(changed, "gan")
    assert stage_fingerprint(plain, "encoder") != stage_fingerprint(changed, "encoder")
    start = plain.networks.state_dict()
    for key, value in changed.networks.state_dict().items():
        assert key.startswith("encoder") or torch.equal(value, start[key])


@pytest.mark.parametrize(("system", "changes"), cases("of_gan"))
def test_settings_of_the_gan_change_both_stages(system: System, changes: dict):
    plain, changed = system.build(), system.build(changes)
    for stage in ("gan", "encoder"):
        assert stage_fingerprint(plain, stage) != stage_fingerprint(changed, stage)


@every_system
def test_critic_separates_frozen_fakes_and_generator_climbs_a_frozen_critic(system: System):
    detector, data = system.build(), rows()
    for name, term in (("critic", "discrimination"), ("generator", "adversarial")):
        step, network = step_of(detector, name), detector.networks[name]
        detector.networks.requires_grad_(False)
        network.requires_grad_(True)
        optimizer = torch.optim.Adam(network.parameters(), lr=4e-3, betas=(0.0, 0.9))
        history = []
        for _ in range(40):
            optimizer.zero_grad()
            terms = step.loss(batch(data))
            sum(detector.weights[key] * value for key, value in terms.items()).backward()
            optimizer.step()
            judged = [value for key, value in terms.items() if key.startswith(term)]
            history.append(sum(judged).item())
        assert history[-1] < history[0] - 1


@every_system
def test_encoder_learns_to_reconstruct_what_the_frozen_generator_can_draw(system: System):
    detector = system.build(system.reconstructing)
    encoder, loss = detector.networks["encoder"], step_of(detector, "encoder").loss
    detector.networks["generator"].eval()
    codes = torch.randn(4, detector.latent.size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        drawn = detector.draw(codes.tanh(), CLASSES)
    detector.networks.requires_grad_(False)
    encoder.train().requires_grad_(True)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=5e-3)
    history = []
    for _ in range(120):
        optimizer.zero_grad()
        term = loss(batch(drawn))["image"]
        term.backward()
        optimizer.step()
        history.append(term.item())
    assert history[-1] < 0.1 * history[0]
