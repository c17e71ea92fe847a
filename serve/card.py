"""What the ingress knows of a bundle without loading its networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gan_ray.artifacts.bundle import refuse_conditional
from gan_ray.artifacts.folder import read_file
from gan_ray.artifacts.manifest import MANIFEST, Manifest, parse_manifest
from gan_ray.artifacts.store import candidates, resolve
from gan_ray.config import from_dict, to_dict
from gan_ray.detector import ImageSpec
from gan_ray.errors import ArtifactError, ConfigError
from gan_ray.scoring import calibration
from gan_ray.scoring.calibration import Calibration
from serve.schemas import ModelMetadata, TensorMetadata, Threshold
from serve.settings import AppArgs, Pace


@dataclass(frozen=True)
class Card:
    """A model in the words of its manifest."""

    manifest: Manifest

    @classmethod
    def read(cls, bundle: Path) -> Card:
        """Read the manifest of a bundle.

        Raises:
            ArtifactError: it is missing or not what it says it is.
        """
        file = bundle / MANIFEST
        return cls(parse_manifest(read_file(file), str(file)))

    @classmethod
    def of(cls, reference: str, registry: str | None) -> Card:
        """Read the manifest of the bundle that a reference stands for; no weights are loaded.

        Of `name@newest` it is the newest version that is sound.

        Raises:
            ArtifactError: no such bundle, or it is damaged.
            ConfigError: it needs the class of each image.
        """
        *others, last = candidates(reference, registry)
        for one in others:
            with suppress(ArtifactError, ConfigError):  # told when the scoring processes start
                return cls._sound(one, registry)
        return cls._sound(last, registry)

    @classmethod
    def _sound(cls, reference: str, registry: str | None) -> Card:
        folder = resolve(reference, registry)
        card = cls.read(folder)
        refuse_conditional(card.manifest, folder)
        return card

    @property
    def name(self) -> str:
        """Name in the URL."""
        return self.manifest.name

    @property
    def image(self) -> ImageSpec:
        """What the networks take."""
        return self.manifest.image

    @cached_property
    def _calibration(self) -> Calibration | None:
        stored = self.manifest.calibration
        return None if stored is None else from_dict(Calibration, stored)

    @cached_property
    def threshold(self) -> Threshold | None:
        """Where abnormal begins, if the bundle is calibrated."""
        return None if self._calibration is None else _stated(self._calibration, "")

    @cached_property
    def strata(self) -> dict[str, Threshold]:
        """Where it begins for images of strata that have a threshold of their own."""
        own = {} if self._calibration is None else self._calibration.strata
        return {name: _stated(threshold, name) for name, threshold in own.items()}

    @property
    def map_range(self) -> tuple[float, float] | None:
        """The values that the ends of the heat map's colour scale stand for; None without maps."""
        scale = (self.manifest.calibration or {}).get("map_range")
        return None if scale is None else (float(scale[0]), float(scale[1]))

    def pace(self, args: AppArgs) -> Pace:
        """Give the pace that it is served at."""
        return args.pace(self.manifest.passes_per_image)

    def metadata(
        self, args: AppArgs, versions: Sequence[str], refused: Mapping[str, str]
    ) -> ModelMetadata:
        """Describe the model in the terms of the Open Inference Protocol v2.

        `versions` are served, `refused` tells why newer ones are not.
        """
        pace = self.pace(args)
        manifest, stored = self.manifest, self.manifest.calibration
        size, channels = manifest.image.size, manifest.image.channels
        images, maps = [-1, channels, size, size], [-1, 1, size, size]
        return ModelMetadata(
            name=manifest.name,
            versions=list(versions),
            inputs=[TensorMetadata(name="image", datatype="FP32", shape=images)],
            outputs=[
                TensorMetadata(name="score", datatype="FP32", shape=[-1]),
                TensorMetadata(name="p_value", datatype="FP32", shape=[-1]),
                TensorMetadata(name="anomaly_map", datatype="FP32", shape=maps),
                TensorMetadata(name="reconstruction", datatype="FP32", shape=images),
            ],
            parameters={
                "architecture": manifest.architecture,
                "score": manifest.score.get("name", ""),
                "threshold": self.threshold,
                "strata": self.strata,
                "calibration_images": None if stored is None else stored["images"],
                "map_range": self.map_range,
                "fit": manifest.fit,
                "preprocess": manifest.preprocessing,
                "digest": f"sha256:{manifest.digest}",
                "version": manifest.version,
                "refused": dict(refused),
                "precision": manifest.precision,
                "drift": None if manifest.drift is None else to_dict(manifest.drift),
                "passes_per_image": manifest.passes_per_image,
                "max_batch": pace.max_batch,
                "deadline_s": pace.deadline_s,
            },
        )


def _stated(threshold: calibration.Threshold, stratum: str) -> Threshold:
    return Threshold(value=threshold.threshold, fpr=threshold.fpr, id=threshold.id, stratum=stratum)
