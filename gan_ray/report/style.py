"""The look of every figure: one colour-blind safe palette, and SVG that follows the page's theme.

Colours are Okabe and Ito's (2008), named here by what they mean. Figures are drawn with the light
values; in SVG each becomes a CSS variable, so that a browser's dark mode recolours the lines too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

INK, MUTED, RULE, PAPER = "#1c2733", "#5f6b78", "#d9dee4", "#fefefe"
NORMAL, ABNORMAL, MARK = "#0072b2", "#d55e00", "#9a1f57"
SERIES = ("#0072b3", "#d55e01", "#009e73", "#8a5fb0", "#b58900", "#56b4e9")
STROKES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), "-.")

_VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper"}
_VARIABLES |= {NORMAL: "normal", ABNORMAL: "abnormal", MARK: "mark"}
_VARIABLES |= {colour: f"series-{index}" for index, colour in enumerate(SERIES)}

_SETTINGS = {
    "font.family": "sans-serif",
    "font.size": 8.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titlepad": 7.0,
    "axes.axisbelow": True,
    "axes.formatter.limits": (-3, 5),
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.facecolor": "none",
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "xtick.color": MUTED,
    "xtick.labelsize": 8.0,
    "xtick.major.size": 0.0,
    "ytick.color": MUTED,
    "ytick.labelsize": 8.0,
    "ytick.major.size": 0.0,
}


@contextmanager
def drawing(*, salt: str = "gan-ray") -> Iterator[None]:
    """Draw in the project's look inside this context; `salt` keeps SVG ids apart and repeatable."""
    import matplotlib

    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": salt}):
        yield


def figure(width: float, height: float) -> Any:
    """Give an empty matplotlib figure of that many inches, unknown to pyplot: nothing to close."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def to_svg(drawn: Any, *, description: str) -> str:
    """Give a figure as an inline `<svg>` with themed colours, text as text and no foreign address.

    `description` is what a screen reader says.
    """
    from markupsafe import escape

    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(<g|<svg)([^>]*?) id="[^"]*"', r"\1\2", text)
    text = re.sub(r'\s+xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"font: (?:\w+ )?([\d.]+px)[^;\"]*", r"font: \1 var(--sans)", text)
    for colour, name in _VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    opening = re.sub(r' (?:width|height|version)="[^"]*"', "", text[: text.index(">")])
    said = f' role="img" aria-label="{escape(description)}"'
    return opening + said + text[text.index(">") :].strip()


def heat(
    values: NDArray[Any], low: float, high: float, *, darkest: float = 0.0
) -> NDArray[np.uint8]:
    """Colour map values of any shape [...] as RGB [..., 3]: `low` is dark, `high` is bright.

    The scale is the caller's and never the image's own, so that equal colours mean equal values.
    `darkest` in [0, 1) leaves out that share of the dark colours, for overlays.
    """
    from matplotlib import colormaps

    share = np.clip((np.asarray(values, np.float64) - low) / max(high - low, 1e-12), 0.0, 1.0)
    colours = colormaps["inferno"](darkest + (1.0 - darkest) * share, bytes=True)
    rgb: NDArray[np.uint8] = colours[..., :3]
    return rgb
