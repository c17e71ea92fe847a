"""What the reader makes of every file of the formats archive, with the time and memory it takes.

`python -m benchmarks.formats ARCHIVE > docs/formats.md`, ARCHIVE the zip with `formats/expect.csv`.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import time
import tracemalloc
import zipfile
from dataclasses import dataclass
from pathlib import Path

from gan_ray import names
from gan_ray.data.readers import read_image
from gan_ray.errors import DataError

SECONDS, MEBIBYTES = 0.3, 64
REFUSED = {"nasty/image.webp"}
"""What could be read and is not."""
_WARM_UP = ("dicom/cxr_mono2_8bit.dcm", "nifti/nibabel_standard.nii.gz")


@dataclass(frozen=True)
class Row:
    """One file: what a careful reader does with it, and what ours did."""

    file: str
    expected: str
    got: str
    seconds: float
    """Of CPU, best of three."""
    mebibytes: float

    @property
    def right(self) -> bool:
        """Whether it is what is expected, in time and memory."""
        may = {word for word in ("ok", "reject") if word in self.expected}
        if "clear error" in self.expected or self.file in REFUSED:
            may.add("reject")
        outcome = self.got.partition(" ")[0].rstrip(":")
        return outcome in may and self.seconds <= SECONDS and self.mebibytes <= MEBIBYTES


def read_all(path: Path) -> list[Row]:
    """Read every file that the archive's table names."""
    archive = zipfile.ZipFile(path)
    table = list(csv.DictReader(io.StringIO(archive.read("formats/expect.csv").decode())))
    files = {row["file"]: archive.read("formats/" + row["file"]) for row in table}
    for name in _WARM_UP:
        read_image(files[name], name)  # imports are no part of the time of a file
    return [_row(row["file"], row["expected"], files[row["file"]]) for row in table]


def _row(name: str, expected: str, data: bytes) -> Row:
    got, mebibytes = _outcome_and_memory(data, name)
    seconds = min(_seconds(data, name) for _ in range(3))
    return Row(name, expected, got, seconds, mebibytes)


def _outcome_and_memory(data: bytes, name: str) -> tuple[str, float]:
    tracemalloc.start()
    try:
        read = read_image(data, name)
        got = f"ok {read.shape} {read.dtype}"
    except DataError as error:
        # The first words tell the file: an error that names none is of no use.
        rest = str(error).removeprefix(repr(name) + " ")
        got = f"reject: {rest}" if rest != str(error) else f"nameless: {error}"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return got, peak / 2**20


def _seconds(data: bytes, name: str) -> float:
    start = time.process_time()
    with contextlib.suppress(DataError):
        read_image(data, name)
    return time.process_time() - start


def markdown(rows: list[Row]) -> str:
    """Give the table as a page."""
    slowest, largest = max(row.seconds for row in rows), max(row.mebibytes for row in rows)
    lines = [
        "# Every file of the formats archive",
        "",
        f"{sum(row.right for row in rows)} of {len(rows)} files give what is expected within "
        f"{SECONDS * 1000:.0f} ms and {MEBIBYTES} MiB.",
        f"Slowest {slowest * 1000:.0f} ms of CPU (best of three), most memory {largest:.0f} MiB "
        "(what Python and NumPy allocate). `ok` gives the shape and type of the pixels.",
        "Written by `python -m benchmarks.formats ARCHIVE > docs/formats.md`; a test reads the "
        "same files.",
        "",
        "| file | expected | got | CPU ms | MiB |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (row.file, row.expected, _short(row.got))
        told = " | ".join(cell.replace("|", "\\|") for cell in cells)
        mark = "" if row.right else " **not right**"
        lines.append(f"| {told}{mark} | {row.seconds * 1000:.1f} | {row.mebibytes:.1f} |")
    return "\n".join(lines) + "\n"


def _short(text: str) -> str:
    return text if len(text) <= 110 else text[:107].rstrip() + "..."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    names.show()  # a refusal has to name its file, and these are nobody's
    print(markdown(read_all(parser.parse_args().archive)), end="")


if __name__ == "__main__":
    main()
