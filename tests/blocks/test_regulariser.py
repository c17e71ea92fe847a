import copy

import pytest
import torch
from torch import nn

from gan_ray.blocks.regulariser import Regulariser, regularise_, regularised
from gan_ray.config import Optimizer
from gan_ray.detector import Step

STEP = Step("critic", ("critic",), lambda batch: {}, Optimizer(), every=3)


@pytest.mark.parametrize(
    ("kind", "second_order", "clip"),
    [
        ("gradient_penalty", True, 0.0),
        ("weight_clipping", False, 0.03),
        ("spectral_norm", False, 0.0),
        ("none", False, 0.0),
    ],
)
def test_step_asks_the_loop_for_what_the_choice_needs_and_keeps_the_rest(
    kind: Regulariser, second_order, clip
):
    step = regularised(STEP, kind, 0.03)
    assert (step.second_order, step.clip_weights) == (second_order, clip)
    assert (step.name, step.trains, step.loss, step.every) == (
        "critic", ("critic",), STEP.loss, 3
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["gradient_penalty", "weight_clipping", "none"])
def test_other_choices_leave_the_critic_as_it_is(kind: Regulariser):
    critic = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 1))
    before = copy.deepcopy(critic.state_dict())
    regularise_(critic, kind)
    assert all(torch.equal(before[key], value) for key, value in critic.state_dict().items())
    assert before.keys() == critic.state_dict().keys()


def test_spectral_norm_bounds_every_layer_the_last_included():
    critic = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 1))
    regularise_(critic, "spectral_norm")
    for _ in range(50):  # steps of the power iteration
        critic.train()(torch.rand(1, 1, 4, 4))
    for layer in (critic[0], critic[2]):
        norm = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
        assert norm.item() == pytest.approx(1.0, abs=1e-3)
