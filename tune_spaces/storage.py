"""Where the studies of a sweep are kept: a journal in its folder, or a database of the user's.

The address of a database may hold a secret. It stays in this module: what is written, printed or
raised says scheme, host, port and database, and nothing else.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage

from gan_ray.errors import ConfigError, StorageError
from gan_ray.storage.store import Store
from gan_ray.storage.uris import parse as parse_uri

JOURNAL = "studies.journal"
FORMS = "write postgresql+psycopg://user@host/database or sqlite:///file"


def described(storage: str) -> str:
    """Give what may be known of an address: the journal's name for none, else no user, no secret.

    Raises:
        ConfigError: it is none of a database that keeps anything.
    """
    return _shown(_parse(storage)) if storage else JOURNAL


def open_storage(storage: str, store: Store) -> BaseStorage:
    """Open the database at `storage`, or the journal of a sweep's folder where that is empty.

    Raises:
        ConfigError: no such database, or its driver is not installed.
        StorageError: it does not answer.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not storage:
        return _journal(store)
    url = _parse(storage)
    # Pinged before use: a server may have been started again meanwhile.
    settings = {"pool_pre_ping": True}
    with answering(storage):
        try:
            opened = RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=settings)
        except ImportError:
            raise ConfigError(
                f"--storage: the driver of {url.drivername} is not installed. For PostgreSQL: pip "
                "install 'gan-ray[postgresql]' and write postgresql+psycopg://…"
            ) from None
        except RuntimeError as error:
            raise StorageError(f"--storage {_shown(url)}: {error}") from None
        return optuna.storages.get_storage(opened)


@contextmanager
def answering(storage: str) -> Iterator[None]:
    """Turn what a database of studies may fail with into one error that names no secret.

    Raises:
        StorageError: it failed; the sweep can go on with the same command.
    """
    if not storage:
        yield
        return
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        caused = error.__cause__ or error
        raise StorageError(
            f"the studies' database {described(storage)} failed: {_without_secret(caused, storage)}"
            ". See that it runs, that it may be reached from here and that user and password are "
            "right; then the same command goes on."
        ) from None


def _without_secret(error: BaseException, storage: str) -> str:
    """Give the first line of what went wrong, without password and query of the address."""
    url = _parse(storage)
    told = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    secrets = [url.password, *(v for value in url.query.values() for v in _each(value))]
    for secret in filter(None, secrets):
        told = told.replace(str(secret), "***")
    return told.rstrip(". ")


def _each(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _parse(storage: str) -> Any:
    """Read an address as SQLAlchemy does; a file becomes absolute, for later commands to find."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(storage)
        url.get_dialect()
        if "@" in f"{url.host}{url.database}":
            raise ValueError
    except (ArgumentError, ValueError):  # their words may hold parts of the password
        raise ConfigError(
            f"--storage is no address of a database that is known here: {FORMS}; special "
            "characters of a password are percent-encoded, or it comes from PGPASSWORD."
        ) from None
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise ConfigError(f"--storage sqlite:// keeps nothing: {FORMS}.")
        url = url.set(database=os.path.abspath(url.database))
    return url


def _shown(url: Any) -> str:
    port = f":{url.port}" if url.port else ""
    return f"{url.drivername}://{url.host or ''}{port}/{url.database or ''}"


class _Mirrored(JournalFileBackend):  # type: ignore[misc]
    """A journal file that is uploaded after each entry."""

    def __init__(self, path: Path, store: Store) -> None:
        super().__init__(str(path))
        self._path, self._store = path, store

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        super().append_logs(logs)
        self._store.upload(self._path, JOURNAL)


def _journal(store: Store) -> JournalStorage:
    place = parse_uri(store.uri)
    if place.scheme == "file":
        path = Path(place.path) / JOURNAL
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_torn_entry(path)
        return JournalStorage(JournalFileBackend(str(path)))
    path = Path(tempfile.mkdtemp(prefix="gan-ray-sweep-")) / JOURNAL
    if store.exists(JOURNAL):
        store.download(JOURNAL, path)
    return JournalStorage(_Mirrored(path, store))


def _drop_torn_entry(path: Path) -> None:
    """Cut what follows the last whole line: Optuna would append to it, and never read it again."""
    if path.exists():
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            path.write_bytes(data[: data.rfind(b"\n") + 1])
