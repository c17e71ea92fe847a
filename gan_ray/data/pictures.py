"""PNG, JPEG, TIFF and BMP, through Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from gan_ray.data.brightness import (
    MAX_PIXELS,
    REPLACE,
    from_floats,
    from_integers,
    refusal,
    refuse_size,
)
from gan_ray.data.deep_colour import is_deep, is_torn, read_deep
from gan_ray.errors import DataError

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")


def read_picture(data: bytes, name: str) -> np.ndarray:
    """Give the pixels of a PNG, JPEG, TIFF or BMP file as [H, W] or [H, W, 3], uint8 or uint16.

    The EXIF orientation is applied. Palettes and CMYK become RGB, 1-bit images 0 and 255, and what
    is (half) transparent is laid over black. 16-bit grey keeps its values (0 to 65535, white high),
    and float TIFFs in [0, 1] become 16 bit; so does 16-bit colour, except for CMYK and for grey
    with alpha, which are reduced to 8 bit.

    Raises:
        DataError: the file is damaged, of another format, larger than `MAX_PIXELS`, has several
            pages, or holds values without a defined brightness (NaN, negative, ...).
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_unfit(image, name)
            if is_deep(image):
                return read_deep(data, FORMATS)
            image.load()
            inverted = _stores_white_as_zero(image)
            return _pixels(ImageOps.exif_transpose(image), name, inverted)
    except DataError:
        raise
    except UnidentifiedImageError:
        reason = (
            "is not a PNG, JPEG, TIFF, BMP, DICOM, NIfTI or NumPy file, or its header is damaged"
        )
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reason = f"has more pixels than the {MAX_PIXELS / 1e6:.0f} million that are allowed"
    except Exception as error:  # Pillow's decoders raise what they like on damaged bytes
        reason = f"cannot be decoded ({type(error).__name__}: {error})"
    raise refusal(name, reason, REPLACE)


def _refuse_unfit(image: ImageFile.ImageFile, name: str) -> None:
    refuse_size(image.width, image.height, name)
    # A JPEG with several pictures is a photograph with its previews; the first one is meant.
    if image.format in ("PNG", "TIFF") and getattr(image, "is_animated", False):
        raise refusal(name, "has several pages or frames", "Save each as a file of its own.")
    if is_torn(image):
        raise refusal(
            name,
            "stores each 16-bit colour in a plane of its own, which is not readable yet",
            "Save it with interleaved colours (PlanarConfiguration 1) or as a PNG.",
        )


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
        return from_integers(np.asarray(image), name)
    if image.mode == "F":
        return from_floats(np.asarray(image), name)
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
