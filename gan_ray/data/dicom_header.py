"""The header of a DICOM file: read within bounds, and never quoted."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Sequence
from typing import Any

import pydicom
from pydicom.tag import Tag

from gan_ray.data.brightness import REPLACE, refusal
from gan_ray.errors import DataError

MAX_ELEMENTS = 20_000
"""Elements of a header, those of nested sequences included; an image has some hundreds."""
_MAX_NUMBERS = 1024  # bytes of an element that holds a few numbers
MAX_TABLE = 2**18
"""Bytes of a lookup table: 65,536 entries of 2, and its frame."""


class Header:
    """The elements of one file, found by their keyword.

    Its errors name keywords and never values: a value can be a patient's name.
    """

    def __init__(self, data: bytes, name: str) -> None:
        """Read the elements; pixels stay as compressed as they are.

        Raises:
            DataError: there are more than `MAX_ELEMENTS`, or all of them are packed.
        """
        _keep_quiet()
        self.name = name
        self._dataset = pydicom.dcmread(_Metered(data, name), force=True)
        self._seen: dict[str, Any] = {}

    @property
    def syntax(self) -> pydicom.uid.UID:
        """How the elements and pixels are encoded; guessed from the content if it is not told."""
        told = self._dataset.file_meta.get("TransferSyntaxUID")
        if told:
            return pydicom.uid.UID(told)
        implicit, little = self._dataset.original_encoding
        if implicit:
            return pydicom.uid.ImplicitVRLittleEndian
        return pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian

    def __contains__(self, keyword: str) -> bool:
        """Whether there is such an element, and not an empty one."""
        return bool(self.length(keyword))

    def length(self, keyword: str) -> int:
        """Give the bytes of an element; 0 where there is none."""
        value = self._raw(keyword)
        return len(value) if value else 0

    def packed(self, keyword: str) -> bytes:
        """Give the bytes of an element as they are stored; empty where there is none."""
        value = self._raw(keyword)
        return value if isinstance(value, bytes) else b""

    def vr(self, keyword: str) -> str:
        """Give the type of an element that is there: OB, OW, ..."""
        return str(self._dataset[Tag(keyword)].VR)

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """Give the numbers of an element; none where there is none.

        Raises:
            DataError: they are no finite numbers.
        """
        if keyword not in self:
            return ()
        if self.length(keyword) <= _MAX_NUMBERS:
            try:
                value = self._dataset[Tag(keyword)].value
                several = isinstance(value, Sequence) and not isinstance(value, str)
                values = tuple(float(number) for number in (value if several else [value]))
                if all(math.isfinite(number) for number in values):
                    return values
            except Exception:  # pydicom raises what it likes, and quotes the value
                pass
        raise refusal(self.name, f"has a header whose {keyword} cannot be understood", REPLACE)

    def number(self, keyword: str, default: int | None = None) -> int:
        """Give the whole number of an element, or the default where there is none.

        Raises:
            DataError: it is something else, or missing without a default.
        """
        values = self.numbers(keyword)
        if not values and default is not None:
            return default
        if len(values) != 1 or values[0] != int(values[0]):
            reason = "cannot be understood" if values else "is missing"
            raise refusal(self.name, f"has a header whose {keyword} {reason}", REPLACE)
        return int(values[0])

    def word(self, keyword: str) -> str:
        """Give a code word; "" where there is none. It must not appear in messages."""
        return self.packed(keyword)[:64].decode("ascii", "replace").strip(" \0").upper()

    def table(self, keyword: str) -> tuple[bytes, bytes]:
        """Give descriptor and data, as they are stored, of the first table of a sequence.

        Raises:
            DataError: it is larger than a table can be, or incomplete.
        """
        raw = self._raw(keyword)
        if isinstance(raw, bytes) and len(raw) > MAX_TABLE:
            raise refusal(self.name, f"has a header whose {keyword} is too large", REPLACE)
        item = self._dataset[Tag(keyword)].value[0]
        parts = [item.get_item(Tag(part)) for part in ("LUTDescriptor", "LUTData")]
        return parts[0].value, parts[1].value

    def _raw(self, keyword: str) -> Any:
        if keyword not in self._seen:  # pydicom replaces the bytes once it has understood them
            tag = Tag(keyword)
            there = tag in self._dataset
            self._seen[keyword] = self._dataset.get_item(tag).value if there else None
        return self._seen[keyword]


class _Metered(io.BytesIO):
    """A file that refuses to give more elements than an image has."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self._name = name
        self._elements = 0

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:  # pydicom reads all at once only to inflate it without bounds
            raise self._refusal("is packed as a whole (deflated), which is not readable")
        self._elements += size == 8  # tag and length of an element
        if self._elements > MAX_ELEMENTS:
            raise self._refusal(f"has a header of more than {MAX_ELEMENTS:,} elements")
        return super().read(size)

    def _refusal(self, reason: str) -> DataError:
        return refusal(self._name, reason, "Save the image without them, or as a 16-bit PNG.")


_MODULES = r"pydicom\."


def _keep_quiet() -> None:
    # pydicom logs and warns of what surprises it, and quotes it. Its warnings are known by their
    # module; `catch_warnings` would not do among threads.
    logging.getLogger("pydicom").addFilter(_drop)
    known = (getattr(module, "pattern", "") for _, _, _, module, _ in warnings.filters)
    if _MODULES not in known:
        warnings.filterwarnings("ignore", module=_MODULES)


def _drop(record: logging.LogRecord) -> bool:
    return False
