"""argparse as the verbs want it: its mistakes are our errors (exit 2), without abbreviations."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from gan_ray import names
from gan_ray.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """The options of one verb."""

    def __init__(self, verb: str, about: str) -> None:
        """Take the verb and what it does."""
        super().__init__(prog=f"gan-ray {verb}", description=about, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise ConfigError(f"{message}. See `{self.prog} --help`.")

    def add_show_names(self) -> None:
        """Offer `--show-names`, which counts from where it is read on."""
        about = "name files and patients in messages and rows instead of their pseudonyms"
        self.add_argument("--show-names", action=_Show, nargs=0, help=about)


class _Show(argparse.Action):
    def __call__(self, *_: Any) -> None:
        names.show()
