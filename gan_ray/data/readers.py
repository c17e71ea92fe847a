"""The one reader: bytes of an image file become pixels, for training, scoring and HTTP alike.

A file that cannot be read as it is meant raises `DataError` with the file, the reason and the
remedy; nothing is repaired, clipped or skipped in silence.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gan_ray.errors import DataError

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
MAX_PIXELS = 40_000_000
"""Largest image that is decoded; larger ones are refused by their header, before any decoding."""

_REMEDY = "Replace the file by a readable one or take it out of the data set."
_CONVERT = "Convert it to an 8-bit or 16-bit PNG."


def read_image(data: bytes, name: str) -> np.ndarray:
    """Give the pixels of a PNG, JPEG, TIFF or BMP file as [H, W] or [H, W, 3], uint8 or uint16.

    The content decides the format, not `name`, which only appears in errors. The EXIF orientation
    is applied. Palettes and CMYK become RGB, 1-bit images 0 and 255, and what is (half)
    transparent is laid over black. 16-bit grey keeps its values (0 to 65535, white high), and
    float TIFFs in [0, 1] become 16 bit; 16-bit colour is reduced to 8 bit.

    Raises:
        DataError: the file is empty, damaged, of another format, larger than `MAX_PIXELS`, has
            several pages, or holds values without a defined brightness (NaN, negative, ...).
    """
    if not data:
        raise refusal(name, "is empty (0 bytes)", _REMEDY)
    if foreign := _foreign_format(data, name):
        raise refusal(name, f"is {foreign}, which is not readable yet", _CONVERT)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_unfit(image, name)
            image.load()
            inverted = _stores_white_as_zero(image)
            return _pixels(ImageOps.exif_transpose(image), name, inverted)
    except DataError:
        raise
    except UnidentifiedImageError:
        reason = "is not a PNG, JPEG, TIFF or BMP image, or its header is damaged"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reason = f"has more pixels than the {MAX_PIXELS / 1e6:.0f} million that are allowed"
    except Exception as error:  # Pillow's decoders raise what they like on damaged bytes
        reason = f"cannot be decoded ({type(error).__name__}: {error})"
    raise refusal(name, reason, _REMEDY)


def refusal(name: str, reason: str, remedy: str) -> DataError:
    """Give the error for a file that cannot be used; a quoted name cannot break the sentence."""
    return DataError(f"{name!r} {reason}. {remedy}")


def _foreign_format(data: bytes, name: str) -> str:
    suffix = name.lower()
    if data[128:132] == b"DICM" or suffix.endswith((".dcm", ".dicom")):
        return "a DICOM file"
    single = data[344:348] in (b"n+1\0", b"ni1\0") or data[4:8] in (b"n+2\0", b"ni2\0")
    if single or suffix.endswith((".nii", ".nii.gz")):
        return "a NIfTI file"
    if data.startswith(b"\x93NUMPY"):
        return "a NumPy file"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "a GIF image"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "a WebP image"
    if data.startswith(b"PK\x03\x04"):
        return "an archive inside the data set"
    return ""


def _refuse_unfit(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise refusal(
            name,
            f"has {image.width} x {image.height} pixels, more than the "
            f"{MAX_PIXELS / 1e6:.0f} million that are allowed",
            "Scale it down before training.",
        )
    # A JPEG with several pictures is a photograph with its previews; the first one is meant.
    if image.format in ("PNG", "TIFF") and getattr(image, "is_animated", False):
        raise refusal(name, "has several pages or frames", "Save each as a file of its own.")


def _stores_white_as_zero(image: Image.Image) -> bool:
    # Pillow inverts such a TIFF at 8 bit and leaves it inverted at 16.
    tags = getattr(image, "tag_v2", {})
    return image.mode.startswith("I;16") and tags.get(_PHOTOMETRIC) == 0


_PHOTOMETRIC = 262


def _pixels(image: Image.Image, name: str, inverted: bool) -> np.ndarray:
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)
        return 65535 - pixels if inverted else pixels
    if image.mode == "I":
        return _from_integers(np.asarray(image), name)
    if image.mode == "F":
        return _from_floats(np.asarray(image), name)
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode == "L" and not image.has_transparency_data:
        return np.asarray(image)
    if image.mode in ("L", "LA", "La"):
        return _over_black(np.asarray(image.convert("LA")))[..., 0]
    if image.has_transparency_data:
        return _over_black(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _over_black(pixels: np.ndarray) -> np.ndarray:
    colour, alpha = pixels[..., :-1].astype(np.uint16), pixels[..., -1:].astype(np.uint16)
    return ((colour * alpha + 127) // 255).astype(np.uint8)


def _from_integers(values: np.ndarray, name: str) -> np.ndarray:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise refusal(
            name,
            f"holds integers from {low} to {high}, but 0 to 65535 (16 bit) is what can be read",
            "Scale the values and save it as a 16-bit PNG or TIFF.",
        )
    return values.astype(np.uint16)


def _from_floats(values: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(values).all():
        raise refusal(name, "holds values that are NaN or infinite", "Mend or leave out the image.")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise refusal(
            name,
            f"holds floats from {low:g} to {high:g}, but 0 to 1 is what can be read",
            "Scale the values to 0..1, or save it as a 16-bit PNG or TIFF.",
        )
    return np.rint(values.astype(np.float64) * 65535).astype(np.uint16)
