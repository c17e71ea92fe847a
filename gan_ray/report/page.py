"""A page of HTML that needs neither network nor script: template to file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gan_ray.errors import StorageError
from gan_ray.report import words


def fill(template: str, **values: Any) -> str:
    """Fill a template of this package with `values`. The same values give the same text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("gan_ray", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters.update(
        number=words.number,
        fixed=words.fixed,
        bounds=words.bounds,
        model=words.model_name,
        breakable=words.breakable,
        heading=words.metric_heading,
        duration=words.duration,
        share=words.share,
        p_value=words.p_value,
        verdict=words.verdict,
    )
    return pages.get_template(template).render(**values)


def write(text: str, out: Path | str, *, what: str) -> Path:
    """Write a page; gives its path. `what` names the page in an error.

    Raises:
        StorageError: `out` cannot be written.
    """
    out = Path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write the {what} to {out}: {error}") from None
    return out
