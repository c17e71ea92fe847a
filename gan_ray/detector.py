"""THE CONTRACT: what an architecture is, and all that training and scoring know about it.

A `Detector` owns networks, says in `stages()` how they are trained and in `evidence()` what a look
at a batch yields. A `Stage` is a list of `Step`s run in turn; a `Step` trains some networks with a
loss made of named raw terms. The loop (`training.loop`) weighs the terms with the fields of the
same names in `config.weights`, so that dataclass *is* the objective of the paper and the search
space. A detector owns no optimiser, no device, no logging and no file.

Shapes: images are [B, C, S, S] in [-1, 1]; the leading axis is the image everywhere.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gan_ray.config import Optimizer, fingerprint, flatten, to_dict
from gan_ray.seeds import derive_seed

Pair = tuple[Tensor, Tensor]
"""Two tensors to be compared: of the image, and of its reconstruction."""


@dataclass(frozen=True)
class ImageSpec:
    """The images a detector is built for: squares of `size` pixels with 1 or 3 `channels`."""

    size: int
    channels: int
    classes: int = 1
    """Kinds of normal images that the training data tell apart."""


class Batch:
    """This rank's rows of a global batch, with randomness that belongs to the global batch.

    Every draw is made for all rows of the global batch and sliced, so that N ranks see together
    what one rank would see alone. Draws differ from each other and depend only on the run's seed,
    stage, images, step and their order within the step.
    """

    def __init__(
        self,
        streams: Mapping[str, Tensor],
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        progress: float = 0.0,
        mean_over_ranks: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    ) -> None:
        """Hold this rank's rows; `progress` in [0, 1] is the spent share of the stage's budget.

        `mean_over_ranks` is for a term that is not a mean over samples: it gives the mean of a
        statistic over the ranks, with gradients that are right after averaging over ranks.
        """
        self._streams = dict(streams)
        self._seed, self._rank, self._world, self._draws = seed, rank, world, 0
        self.progress = progress
        self.mean_over_ranks = mean_over_ranks

    def __getitem__(self, stream: str) -> Tensor:
        """Give the rows of a stream that the detector declared in `streams`.

        Images [rows, C, S, S], but for `class`: integers [rows] below `ImageSpec.classes`, the kind
        of each row of `normal`.
        """
        return self._streams[stream]

    @property
    def rows(self) -> int:
        """Rows of this rank."""
        return len(self._streams["normal"])

    def gaussian(self, *shape: int) -> Tensor:
        """Draw N(0, 1) of shape [rows, *shape]: another independent draw at each call."""
        return self._draw(torch.randn, shape)

    def uniform(self, *shape: int) -> Tensor:
        """Draw U[0, 1) of shape [rows, *shape]: another independent draw at each call."""
        return self._draw(torch.rand, shape)

    def _draw(self, kind: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        like = self._streams["normal"]
        generator = torch.Generator(like.device)
        generator.manual_seed(derive_seed(self._seed, self._draws))
        self._draws += 1
        # Drawn in float32 whatever the precision, so that the precisions see the same numbers.
        whole = kind(self.rows * self._world, *shape, generator=generator, device=like.device)
        start = self.rows * self._rank
        return whole[start : start + self.rows].to(like.dtype)


Loss = Callable[[Batch], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Step:
    """One optimiser step: `loss` gives named, unweighted scalars; only `trains` are updated."""

    name: str
    trains: tuple[str, ...]
    loss: Loss
    optimizer: Optimizer
    every: int = 1
    """Runs on 1-based ticks divisible by it: `n_critic` critic ticks precede a generator step."""
    second_order: bool = False
    """The loss differentiates twice through the trained networks (a gradient penalty)."""
    clip_weights: float = 0.0
    """Clamps the trained parameters to [-c, c] after each update, as the first Wasserstein critics
    did (Arjovsky et al. 2017, algorithm 1); 0 does not."""
    after: Callable[[Mapping[str, float]], bool] | None = None
    """Sees the step's raw terms, averaged over ranks; True says that it re-initialised the networks
    of `trains`, whose optimiser state is then forgotten. Costs a synchronisation per tick."""


@dataclass(frozen=True)
class Stage:
    """Steps run in turn until the stage's share of the images is spent.

    Networks that no step trains are frozen and in eval mode. A step listed twice runs twice.
    """

    name: str
    steps: tuple[Step, ...]
    share: float = 1.0
    """Share of `train.images`; the shares of all stages add up to 1."""
    ema: tuple[str, ...] = ()
    """Networks that are scored by the moving average of their weights."""
    ema_decay: float = 0.999
    """Decay of that average per tick."""
    scores: bool = True
    """False while the detector cannot score yet: such a stage reports no objective."""
    until: Callable[[Mapping[str, float]], bool] | None = None
    """Ends the stage early; fed by the caller with figures of held-out normals."""
    claims: tuple[str, ...] = ()
    """Config fields (dotted, a prefix counts for all below it) that matter from this stage on."""

    @property
    def trains(self) -> frozenset[str]:
        """Names of the networks that some step of the stage trains."""
        return frozenset(name for step in self.steps for name in step.trains)


@dataclass(frozen=True)
class Latent:
    """A space of codes [B, `size`] whose images a detector can draw."""

    size: int
    prior: Literal["normal", "uniform"]
    """Of every number in a code: N(0, 1), or uniform in [-1, 1]."""


@dataclass(frozen=True)
class Evidence:
    """What one look at a batch yields; scores are made of it. The leading axis is the image."""

    reconstruction: Tensor | None = None
    """[B, C, S, S] in [-1, 1]: what the image would look like if it were normal."""
    features: Mapping[str, Pair] = field(default_factory=dict)
    """Feature pairs, by the name of the feature extractor."""
    latents: Mapping[str, Pair] = field(default_factory=dict)
    """Latent pairs, by name."""
    logits: Mapping[str, Tensor] = field(default_factory=dict)
    """[B] each; higher is more normal."""
    mask: Tensor | None = None
    """[B, 1, S, S] in [0, 1]: where the detector changed the image."""

    @property
    def offers(self) -> frozenset[str]:
        """Names of what is present: `reconstruction`, `features.critic`, `latents.code`, ..."""
        plain = {n for n in ("reconstruction", "mask") if getattr(self, n) is not None}
        named = ("features", "latents", "logits")
        return frozenset(plain | {f"{kind}.{n}" for kind in named for n in getattr(self, kind)})


class Detector(nn.Module, ABC):
    """An architecture: networks, how they are trained, and what they say about an image."""

    name: ClassVar[str]
    """Its name on the command line."""
    title: ClassVar[str]
    """One line: the system, its authors and year."""
    Config: ClassVar[type[Any]]
    """Its settings: a `@config` class with a field `weights`."""
    streams: ClassVar[tuple[str, ...]] = ("normal",)
    """What a batch must contain."""
    score: ClassVar[str]
    """Name of the paper's score; any other that `offers` can feed is a choice, too."""
    offers: ClassVar[frozenset[str]]
    """What its `Evidence.offers`."""
    infers: tuple[str, ...]
    """Networks that `evidence` uses: what a bundle carries; a variant may need fewer."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Sizes: `tiny`, `default`, `reference`, as changes to an experiment's nested dict."""
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Members of the family, as changes to an experiment's nested dict."""
    passes_per_image: int = 1
    """Network passes one image costs in `evidence`, roughly; batch sizes and timeouts follow it."""
    searches: ClassVar[bool] = False
    """Whether `evidence` searches with gradients, so that no graph of one pass can hold it."""
    conditional: bool = False
    """Whether `evidence` needs the class of each image, known apart from whether it is normal."""
    latent: Latent | None = None
    """The codes that `draw` takes, for detectors with a latent prior."""

    networks: nn.ModuleDict

    def __init__(self, config: Any, image: ImageSpec) -> None:
        """Remember the settings; a subclass then fills `networks`.

        Raises ConfigError (from subclasses) when the image size does not suit the networks.
        """
        super().__init__()
        self.config = config
        self.image = image
        self.networks = nn.ModuleDict()

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """Say how the networks are trained."""

    @abstractmethod
    def evidence(self, images: Tensor, classes: Tensor | None = None) -> Evidence:
        """Look at images [B, C, S, S] in [-1, 1]; the caller has set eval mode and `no_grad`.

        `classes` [B] are integers, given when the detector is `conditional`.
        Each image's evidence is independent of the other rows. Leaves parameters, buffers and
        gradients alone. Rows are counted by `images.shape[0]`, since `len` would fix the batch of
        an exported graph.
        """

    def draw(self, codes: Tensor, classes: Tensor | None = None) -> Tensor:
        """Draw the images [B, C, S, S] in [-1, 1] of codes [B, d] from `latent`.

        Called like `evidence`. A class-conditional detector draws class 0 where none are given.

        Raises:
            NotImplementedError: the detector has no latent prior.
        """
        raise NotImplementedError(f"{self.name} has no latent prior to draw from")

    def held_out(self, batch: Batch) -> Mapping[str, Tensor]:
        """Give scalars [B] of held-out normals for a stage's `until`; none unless it needs some.

        Called like `evidence`; reported as `val/NAME`, the mean over all held-out normals.
        """
        return {}

    @property
    def weights(self) -> Mapping[str, float]:
        """Weights of the loss terms, by name."""
        return {f.name: getattr(self.config.weights, f.name)
                for f in dataclasses.fields(self.config.weights)}  # fmt: skip


def matters(path: str, stages: tuple[Stage, ...], later: tuple[Stage, ...]) -> bool:
    """Tell whether the outcome of `stages` depends on a setting, given its dotted path.

    A setting claimed by a `later` stage alone does not count; one that no stage claims does.
    """

    def claimed(by: tuple[Stage, ...]) -> bool:
        claims = (claim for stage in by for claim in stage.claims)
        return any(path == claim or path.startswith(claim + ".") for claim in claims)

    return claimed(stages) or not claimed(later)


def stage_fingerprint(detector: Detector, name: str) -> str:
    """Name the outcome of a stage by the settings that matter to it: equal names, equal outcome."""
    stages = detector.stages()
    until = [stage.name for stage in stages].index(name) + 1
    settings = {
        path: value
        for path, value in flatten(to_dict(detector.config)).items()
        if matters(path, stages[:until], stages[until:])
    }
    image = list(dataclasses.astuple(detector.image))
    return fingerprint({"architecture": detector.name, "stage": name, "image": image, **settings})
