"""The loop on a toy game: what it updates, when it reports, how it fails and how it goes on."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from gan_ray.config import Optimizer, TrainConfig, config
from gan_ray.detector import Batch, Detector, Evidence, ImageSpec, Stage, Step
from gan_ray.errors import ArtifactError, DivergedError
from gan_ray.training.loop import budgets, fit
from gan_ray.training.optim import learning_rate
from gan_ray.training.state import decode, encode
from tests.conformance import SmoothSource


@config
class Weights:
    pull: float = 1.0
    push: float = 2.0


@config
class ToyConfig:
    weights: Weights = Weights()
    explode_at: int = 0
    reset_at: int = 0
    ema: bool = False
    end_early: bool = False
    clip: float = 0.0
    decay_from: float = 1.0


class Toy(Detector):
    """Two linear networks; `judge` runs every second tick and a second stage trains `reader`."""

    Config = ToyConfig
    streams = ("normal",)

    def __init__(self, settings: ToyConfig, image: ImageSpec) -> None:
        super().__init__(settings, image)
        size = image.channels * image.size**2
        self.networks["maker"] = nn.Linear(size, 4)
        self.networks["judge"] = nn.Linear(4, 1)
        self.networks["reader"] = nn.Sequential(nn.Linear(size, 4), nn.Dropout(0.5))
        self.ticks = 0

    def stages(self) -> tuple[Stage, ...]:
        plain = Optimizer(lr=1e-2, decay_from=self.config.decay_from)
        until = (lambda figures: figures["error"] < 1) if self.config.end_early else None
        return (
            Stage(
                "game",
                (
                    Step("maker", ("maker",), self._maker, plain, after=self._after),
                    Step(
                        "judge",
                        ("judge",),
                        self._judge,
                        plain,
                        every=2,
                        clip_weights=self.config.clip,
                    ),
                ),
                share=0.5,
                ema=("maker",) if self.config.ema else (),
                ema_decay=0.9,
                until=until,
            ),
            Stage("reading", (Step("reader", ("reader",), self._reader, plain),), share=0.5),
        )

    def _maker(self, batch: Batch):
        self.ticks += 1
        images = batch["normal"].flatten(1)
        pull = (self.networks["maker"](images) - batch.gaussian(4)).square().mean()
        if self.ticks == self.config.explode_at:
            pull = pull * torch.nan
        return {"pull": pull}

    def _judge(self, batch: Batch):
        code = self.networks["maker"](batch["normal"].flatten(1))
        return {"push": (self.networks["judge"](code) - batch.uniform(1)).square().mean()}

    def _reader(self, batch: Batch):
        return {"pull": self.networks["reader"](batch["normal"].flatten(1)).square().mean()}

    def _after(self, terms) -> bool:
        if self.ticks == self.config.reset_at:
            self.networks["maker"].reset_parameters()
            return True
        return False

    def evidence(self, images, classes=None) -> Evidence:
        return Evidence()


TRAIN = TrainConfig(images=160, batch_size=8, report_every=24)


def toy(**settings) -> Toy:
    torch.manual_seed(0)
    return Toy(ToyConfig(**settings), ImageSpec(size=4, channels=1))


def source() -> SmoothSource:
    return SmoothSource(("normal",), 4, 1)


def final(train: TrainConfig = TRAIN, resume=None, **settings) -> dict[str, torch.Tensor]:
    detector = toy(**settings)
    for _ in fit(detector, source(), train, seed=3, resume=resume):
        pass
    return {k: v.clone() for k, v in detector.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_budgets_follow_shares_in_whole_batches():
    assert budgets(toy().stages(), TRAIN) == [80, 80]
    assert budgets(toy().stages(), dataclasses.replace(TRAIN, images=1)) == [8, 8]


def test_reports_come_every_so_many_images_and_at_the_end_of_a_stage():
    seen = [(r.stage.name, r.images) for r in fit(toy(), source(), TRAIN, seed=0)]
    assert seen == [
        ("game", 24), ("game", 48), ("game", 72), ("game", 80),
        ("reading", 96), ("reading", 120), ("reading", 144), ("reading", 160),
    ]  # fmt: skip


def test_a_step_runs_on_ticks_divisible_by_every():
    counts: dict[str, int] = {}
    detector = toy()
    maker, judge = detector._maker, detector._judge
    detector._maker = lambda batch: counts.update(m=counts.get("m", 0) + 1) or maker(batch)
    detector._judge = lambda batch: counts.update(j=counts.get("j", 0) + 1) or judge(batch)
    list(fit(detector, source(), TRAIN, seed=0))
    assert counts == {"m": 10, "j": 5}


def test_the_total_is_the_weighted_sum_of_the_terms():
    """One plain gradient-descent-like check: RMS-free, from the first Adam step's direction."""
    detector = toy(weights=Weights(pull=0.0, push=2.0))
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    next(fit(detector, source(), TRAIN, seed=0))
    moved = {k for k, v in detector.state_dict().items() if not torch.equal(before[k], v)}
    assert moved == {"networks.judge.weight", "networks.judge.bias"}


def test_networks_outside_the_stage_are_frozen_and_in_eval_mode():
    training = fit(toy(), source(), TRAIN, seed=0)
    report = next(training)
    networks = report.state.detector.networks
    assert [networks[n].training for n in ("maker", "judge", "reader")] == [True, True, False]
    for report in training:
        if report.stage.name == "reading":
            assert [networks[n].training for n in ("maker", "judge")] == [False, False]
    assert not any(p.requires_grad for p in networks.parameters())


def test_divergence_names_stage_step_term_and_the_images_at_which_it_began():
    with pytest.raises(DivergedError, match="'pull' of step 'maker' in stage 'game'") as caught:
        list(fit(toy(explode_at=5), source(), TRAIN, seed=0))
    assert (caught.value.step, caught.value.term, caught.value.images) == ("maker", "pull", 40)


def test_a_reinitialised_network_starts_with_a_fresh_optimiser():
    detector = toy(reset_at=3)
    report = next(fit(detector, source(), TRAIN, seed=0))  # a report every three ticks
    assert report.state.optimizers["maker"].state_dict()["state"] == {}
    assert report.state.optimizers["judge"].state_dict()["state"] != {}


def test_resume_is_exact_with_averages_and_dropout():
    whole = final(ema=True)
    training = fit(toy(ema=True), source(), TRAIN, seed=3)
    for _ in range(7):
        files = encode(next(training).state)
        assert same(final(ema=True, resume=decode(files)), whole)


def test_a_learning_rate_falls_over_the_end_of_each_stage():
    rates = {}
    for report in fit(toy(decay_from=0.5), source(), TRAIN, seed=0):
        every_tick = next(iter(report.state.optimizers.values()))
        rates[report.images] = every_tick.param_groups[0]["lr"]
    # Ticks of 8 images begin at progress 0, 0.1, ... 0.9 of a stage of 80.
    assert rates == pytest.approx(
        {24: 1e-2, 48: 1e-2, 72: 4e-3, 80: 2e-3, 96: 1e-2, 120: 1e-2, 144: 6e-3, 160: 2e-3}
    )


def test_resume_is_exact_while_the_learning_rate_falls():
    whole = final(decay_from=0.25)
    assert not same(whole, final())
    training = fit(toy(decay_from=0.25), source(), TRAIN, seed=3)
    for _ in range(7):
        files = encode(next(training).state)
        assert same(final(decay_from=0.25, resume=decode(files)), whole)


@pytest.mark.parametrize("decay_from", [0.0, 0.5, 0.9, 1.0])
def test_a_learning_rate_is_constant_then_a_line_to_zero(decay_from):
    settings = Optimizer(lr=2.0, decay_from=decay_from)
    seen = [learning_rate(settings, progress / 100) for progress in range(100)]
    falling = 100 * (1 - decay_from)
    for progress, rate in enumerate(seen):
        assert rate == pytest.approx(2.0 * min(1.0, (100 - progress) / (falling or 1.0)))


def test_averaged_weights_score_and_become_the_weights_of_the_next_stage():
    detector = toy(ema=True)
    training = fit(detector, source(), TRAIN, seed=3)
    report = next(training)
    live = detector.networks["maker"].weight.clone()
    with report.state.scoring():
        lent = detector.networks["maker"].weight.clone()
    assert not torch.equal(lent, live)
    assert torch.equal(detector.networks["maker"].weight, live)
    for report in training:
        if report.stage.name == "game":
            averaged = report.state.average.averages["maker.weight"].clone()
    assert torch.equal(detector.networks["maker"].weight, averaged)


def test_figures_of_held_out_normals_can_end_a_stage():
    training = fit(toy(end_early=True), source(), TRAIN, seed=0)
    assert next(training).stage.name == "game"
    assert training.send({"error": 2.0}).stage.name == "game"
    report = training.send({"error": 0.5})
    assert (report.stage.name, report.state.stage_images, report.images) == ("reading", 24, 72)


def test_an_early_end_is_remembered_by_the_checkpoint():
    training = fit(toy(end_early=True), source(), TRAIN, seed=0)
    report = next(training)
    files = encode(report.state, {"error": 0.5})
    resumed = next(fit(toy(end_early=True), source(), TRAIN, seed=0, resume=decode(files)))
    assert resumed.stage.name == "reading"


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "digest.json"])
def test_a_torn_checkpoint_is_refused(name):
    files = encode(next(fit(toy(), source(), TRAIN, seed=0)).state)
    decode(files)
    with pytest.raises(ArtifactError):
        decode({k: v for k, v in files.items() if k != name})
    cut = bytearray(files[name])
    cut[len(cut) // 2] ^= 1
    with pytest.raises(ArtifactError):
        decode({**files, name: bytes(cut)})


def test_accumulating_parts_equals_the_whole_batch():
    exact = dataclasses.replace(TRAIN, precision="fp64", images=80)
    in_parts = dataclasses.replace(exact, accumulate=4)
    results = []
    for train in (exact, in_parts):
        detector = toy()
        detector.networks["reader"][1].p = 0.0  # dropout draws per part
        list(fit(detector, SmoothSource(("normal",), 4, 1, torch.float64), train, seed=0))
        results.append(detector.state_dict())
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=0, atol=1e-12)


def test_clipping_bounds_the_gradient_of_a_step(monkeypatch):
    norms = []
    step = torch.optim.Adam.step

    def watched(self, *args):
        parameters = [p for g in self.param_groups for p in g["params"]]
        norms.append(torch.cat([p.grad.flatten() for p in parameters]).norm().item())
        return step(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    list(fit(toy(), source(), TRAIN, seed=0))
    assert max(norms) > 0.1
    norms.clear()
    list(fit(toy(), source(), dataclasses.replace(TRAIN, clip_gradient=0.1), seed=0))
    assert max(norms) <= 0.1 + 1e-6


def test_clipped_weights_stay_within_the_bound_and_others_are_left_alone():
    def largest(clip: float) -> dict[str, float]:
        detector = toy(clip=clip)
        for report in fit(detector, source(), TRAIN, seed=0):
            assert report.stage.name != "game" or not clip or _largest(detector, "judge") <= clip
        return {name: _largest(detector, name) for name in detector.networks}

    free, clipped = largest(0.0), largest(0.01)
    assert free["judge"] > 0.1, "otherwise the test is blind"
    assert clipped["judge"] == pytest.approx(0.01)
    assert clipped["maker"] == free["maker"] > 0.1
    assert clipped["reader"] == free["reader"] > 0.1


def _largest(detector: Toy, network: str) -> float:
    return max(p.abs().max().item() for p in detector.networks[network].parameters())


def test_draws_belong_to_the_global_batch():
    rows = torch.zeros(8, 1, 4, 4)
    whole = Batch({"normal": rows}, seed=5)
    halves = [Batch({"normal": rows[:4]}, seed=5, rank=r, world=2) for r in range(2)]
    for draw in ("gaussian", "uniform"):
        expected = getattr(whole, draw)(3)
        assert torch.equal(torch.cat([getattr(h, draw)(3) for h in halves]), expected)
    assert not torch.equal(whole.gaussian(3), whole.gaussian(3))
