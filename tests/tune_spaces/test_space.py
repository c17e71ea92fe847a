from __future__ import annotations

from typing import Annotated

import pytest
import torch

from gan_ray import architectures
from gan_ray.config import config, flatten, to_dict
from gan_ray.errors import ConfigError
from gan_ray.experiment import build_detector, make
from gan_ray.ranges import Choice, IntRange, Uniform, Value, When
from tune_spaces.derive import corners, derive
from tune_spaces.settings import with_settings
from tune_spaces.space import Space


@config
class Weights:
    smooth: Annotated[float, Uniform(0.0, 1.0), When(kind="smooth")] = 0.5


@config
class Net:
    depth: Annotated[int, IntRange(1, 3)] = 1


@config
class Model:
    kind: Annotated[str, Choice("sharp", "smooth")] = "sharp"
    net: Annotated[Net, When(kind="smooth")] = Net()
    extra: bool = False
    width: Annotated[int, Choice(8, 16), When(kind="smooth", extra=True)] = 8
    weights: Weights = Weights()


def model() -> Space:
    return derive(Model, "model.")


def test_a_condition_names_a_field_of_its_class_or_of_one_around_it() -> None:
    smooth = When(**{"model.kind": "smooth"})
    assert model().conditions == {
        "model.net.depth": (smooth,),
        "model.width": (When(**{"model.kind": "smooth", "model.extra": True}),),
        "model.weights.smooth": (smooth,),
    }


def test_a_condition_on_a_field_that_is_not_further_up_is_a_fault() -> None:
    @config
    class Wrong:
        width: Annotated[int, Choice(8, 16), When(kind="smooth")] = 8
        kind: str = "sharp"

    with pytest.raises(KeyError, match="kind"):
        derive(Wrong)


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("sharp", {"model.kind"}),
        ("smooth", {"model.kind", "model.net.depth", "model.width", "model.weights.smooth"}),
    ],
)
def test_only_what_matters_is_drawn(kind: str, keys: set[str]) -> None:
    drawn = model().draw(lambda key, values: kind if key == "model.kind" else corners(values)[0])
    assert drawn.keys() == keys


@pytest.mark.parametrize(
    ("pinned", "left", "asked"),
    [
        ({}, {"model.kind", "model.net.depth", "model.width", "model.weights.smooth"},
         {"model.net.depth", "model.width", "model.weights.smooth"}),
        ({"model.extra": True}, {"model.kind", "model.net.depth", "model.width",
         "model.weights.smooth"}, {"model.net.depth", "model.weights.smooth"}),
        ({"model.kind": "sharp"}, set(), set()),
        ({"model.kind": "smooth"}, {"model.net.depth", "model.width", "model.weights.smooth"},
         set()),
        ({"model.kind": "sharp+smooth"}, {"model.net.depth", "model.width",
         "model.weights.smooth"}, set()),
    ],
)  # fmt: skip
def test_what_is_pinned_decides_what_is_left_to_search(pinned, left, asked) -> None:
    settings = flatten({"model": to_dict(Model())}) | pinned
    wanted = {key: values for key, values in model().items() if key not in pinned}
    space = model().within(wanted, settings)
    assert set(space) == left
    assert set(space.conditions) == asked


def test_a_narrowed_choice_settles_the_conditions_on_it() -> None:
    wide = Space(
        {"kind": Choice("a", "b", "c"), "of_a": IntRange(1, 2), "of_c": IntRange(1, 2),
         "of_both": IntRange(1, 2), "below": IntRange(1, 2)},
        {"of_a": (When(kind="a"),), "of_c": (When(kind="c"),),
         "of_both": (When(kind=("a", "b")),), "below": (When(of_c=1),)},
    )  # fmt: skip
    space = wide.within({**wide, "kind": Choice("a", "b")}, {})
    assert list(space) == ["kind", "of_a", "of_both"]
    assert space.conditions == {"of_a": (When(kind="a"),)}


def idle_settings(name: str, variant: str) -> dict[str, Value]:
    """Other values of what is said not to matter, beside the settings of a system."""
    base = make(name, variant=variant, preset="tiny")
    space, settings = derive(type(base.model), "model."), flatten(to_dict(base))
    return {
        key: next(value for value in corners(values) if value != settings[key])
        for key, values in space.items()
        if not space.matters(key, settings)
    }


def systems_with_idle_settings() -> list[tuple[str, str]]:
    every = [(n, v) for n in architectures.names() for v in ("", *architectures.get(n).variants)]
    return [system for system in every if idle_settings(*system)]


@pytest.mark.parametrize(("name", "variant"), systems_with_idle_settings())
def test_a_setting_that_is_said_not_to_matter_changes_no_network(name: str, variant: str) -> None:
    base = make(name, variant=variant, preset="tiny")
    images = torch.rand(2, base.data.channels, base.data.image_size, base.data.image_size) * 2 - 1

    def built(experiment) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        detector = build_detector(experiment).eval()
        with torch.no_grad():
            evidence = detector.evidence(images, torch.zeros(2, dtype=torch.long))
        return detector.state_dict(), evidence.reconstruction

    weights, shown = built(base)
    for key, value in idle_settings(name, variant).items():
        try:
            others, other = built(with_settings(base, {key: value}))
        except ConfigError:  # what has no effect may be refused
            continue
        assert weights.keys() == others.keys(), key
        assert all(torch.equal(tensor, others[name]) for name, tensor in weights.items()), key
        assert shown is None or torch.equal(shown, other), key
