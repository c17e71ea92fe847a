"""What the ingress knows of a bundle without loading its networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gan_ray.artifacts.folder import read_file
from gan_ray.artifacts.manifest import MANIFEST, Manifest, parse_manifest
from gan_ray.config import fingerprint
from gan_ray.detector import ImageSpec
from serve.schemas import ModelMetadata, TensorMetadata, Threshold


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

    @property
    def name(self) -> str:
        """Name in the URL."""
        return self.manifest.name

    @property
    def image(self) -> ImageSpec:
        """What the networks take."""
        return self.manifest.image

    @property
    def threshold(self) -> Threshold | None:
        """Where abnormal begins, if the bundle is calibrated."""
        calibration = self.manifest.calibration
        if calibration is None:
            return None
        name = "thr-" + fingerprint(calibration)[:8]
        return Threshold(value=calibration["threshold"], fpr=calibration["fpr"], id=name)

    @property
    def map_range(self) -> tuple[float, float] | None:
        """The values that the ends of the heat map's colour scale stand for; None without maps."""
        scale = (self.manifest.calibration or {}).get("map_range")
        return None if scale is None else (float(scale[0]), float(scale[1]))

    def metadata(self) -> ModelMetadata:
        """Describe the model in the terms of the Open Inference Protocol v2."""
        manifest, calibration = self.manifest, self.manifest.calibration
        size, channels = manifest.image.size, manifest.image.channels
        images, maps = [-1, channels, size, size], [-1, 1, size, size]
        return ModelMetadata(
            name=manifest.name,
            versions=[manifest.version],
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
                "calibration_images": None if calibration is None else calibration["images"],
                "map_range": self.map_range,
                "fit": manifest.fit,
                "preprocess": manifest.preprocessing,
                "digest": f"sha256:{manifest.digest}",
                "passes_per_image": manifest.passes_per_image,
            },
        )
