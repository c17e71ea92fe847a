"""What the names of files and patients become outside of this process: keyed pseudonyms.

A pseudonym is the head of HMAC-SHA256(key, name) in hexadecimal digits. Who has the key can find
the name of a pseudonym by trying the names that there are; who has not learns nothing, not even
from a list of all patients. No split, seed, order or figure depends on the key.

The key is that of GAN_RAY_PSEUDONYM_KEY, or else of a file of this user that is made at its first
use. Processes on other machines are handed its `secret`.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from gan_ray.errors import ConfigError

KEY, SHOW = "GAN_RAY_PSEUDONYM_KEY", "GAN_RAY_SHOW_NAMES"
"""Variables of the environment: the key as hexadecimal digits; 1 for `--show-names`."""
SHORTEST_KEY = 16  # bytes
DIGITS = 12
"""Of the pseudonyms in messages, evaluations and reports."""
OBJECT_DIGITS = 24
"""Of an object of a bucket: of a billion objects, no two share one. Begins with the short one."""

_PSEUDONYM = re.compile(rf"#[0-9a-f]{{{DIGITS},}}\b")
_MAKE_ONE = f"set {KEY}, e.g. to the output of `openssl rand -hex 32`"


class Public(str):
    """A name that this project or a format gives, or that the reader of the message told us."""


def shown(name: str, hidden: str | None = None) -> str:
    """Name a file or patient in a message: `#` and its pseudonym, or itself with `--show-names`.

    `hidden` is what its pseudonym is made of, where that is not the name itself. The name of an
    own format (`Public`) is shown always; quoted, no name can break a sentence.
    """
    told = named(name, hidden)
    return repr(told) if told == name else told


def named(name: str, hidden: str | None = None) -> str:
    """Name a file or patient as `shown` does, without quotes."""
    if isinstance(name, Public) or are_shown():
        return str(name)
    return f"#{pseudonym(name if hidden is None else hidden)}"


def why(error: BaseException) -> str:
    """Say what a foreign error is: its kind alone, as its text may quote names; both when shown."""
    kind = type(error).__name__
    return f"{kind}: {error}" if are_shown() else kind


def trace(error: BaseException) -> str:
    """Say where an unexpected error arose: its frames and `why`, for a log."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{why(error)}, at\n{frames}"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Name the first of many files in a message."""
    return ", ".join(map(named, names[:most]))


def hint(text: str) -> str:
    """Say what the pseudonyms in a text stand for, to be put behind it; "" without any."""
    if not _PSEUDONYM.search(text):
        return ""
    return (
        " (#… are pseudonyms of files or patients: --show-names names them, see docs/privacy.md.)"
    )


def are_shown() -> bool:
    """Say whether messages may name files and patients."""
    return os.environ.get(SHOW, "") not in ("", "0")


def show() -> None:
    """Name files and patients from now on, also in processes that are started later."""
    os.environ[SHOW] = "1"


@contextmanager
def as_before() -> Iterator[None]:
    """Let `show` count within the block alone."""
    before = os.environ.get(SHOW)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(SHOW, None)
        else:
            os.environ[SHOW] = before


def pseudonym(name: str, digits: int = DIGITS) -> str:
    """Give a name's pseudonym; equal for equal names and keys, on every machine.

    Raises:
        ConfigError: there is no usable key, and none can be made.
    """
    content = name.encode("utf-8", "surrogateescape")
    return hmac.digest(_key(), content, "sha256").hex()[:digits]


def pseudonyms(names: Iterable[str]) -> list[str]:
    """Give the pseudonyms of many names, in their order."""
    return [pseudonym(str(name)) for name in names]


def key_name() -> str:
    """Give a name of the key that tells nothing of it: two runs with one key agree on it."""
    return pseudonym("\0key")


def environment() -> dict[str, str]:
    """Give the variable that tells other processes whether to show names; the key is not in it."""
    return {SHOW: "1" if are_shown() else "0"}


def secret() -> str:
    """Give the key, to be handed to workers as an argument: Ray logs the environment of a job.

    Raises:
        ConfigError: there is no usable key, and none can be made.
    """
    return _key().hex()


def use(key: str) -> None:
    """Take the `secret` that another process handed over."""
    os.environ[KEY] = key


def key_file() -> Path:
    """Give the place of this user's own key."""
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(config).expanduser() / "gan-ray" / "pseudonym.key"


def _key() -> bytes:
    told = os.environ.get(KEY, "")
    if told:
        return _parsed(told, KEY)
    # By what the place depends on: to put the path together takes longer than a pseudonym.
    return _kept(os.environ.get("XDG_CONFIG_HOME"), os.environ.get("HOME"))


@lru_cache(maxsize=8)
def _parsed(text: str, where: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        raise ConfigError(f"{where} is not of hexadecimal digits: {_MAKE_ONE}.") from None
    if len(key) < SHORTEST_KEY:
        raise ConfigError(
            f"{where} holds {len(key)} bytes; at least {SHORTEST_KEY} ({2 * SHORTEST_KEY} "
            f"hexadecimal digits) are needed: {_MAKE_ONE}."
        )
    return key


@lru_cache(maxsize=8)
def _kept(_config: str | None, _home: str | None) -> bytes:
    """Read the key file, after making it where there is none; the first of several makers wins."""
    file = key_file()
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            partial = file.with_name(f".{secrets.token_hex(8)}")
            with os.fdopen(
                os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w"
            ) as new:
                new.write(secrets.token_hex(32) + "\n")
            try:
                os.link(partial, file)
            except FileExistsError:
                pass
            finally:
                partial.unlink()
        if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"others than you may use the key in {file}: `chmod 600 {file}`.")
        return _parsed(file.read_text(encoding="ascii"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the key of the pseudonyms cannot be kept in {file} ({error}): {_MAKE_ONE}."
        ) from None
