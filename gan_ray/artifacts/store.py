"""Bundles under names: `name@version` in a registry, which is a directory or a bucket.

    REGISTRY/name/version/{weights.safetensors, golden.npz, manifest.json}

The manifest is written last, so a version exists once all of it is there. Every file is written on
the condition that it is absent, so a version never changes: whoever publishes other content
under it loses, whoever publishes the same content again, or goes on after a crash, succeeds.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

from gan_ray.artifacts.bundle import load_bundle, read_verified
from gan_ray.artifacts.folder import new_folder
from gan_ray.artifacts.manifest import MANIFEST, Manifest, is_plain_name, parse_manifest
from gan_ray.errors import ArtifactError, ConfigError, unknown
from gan_ray.storage.store import ObjectMissing, Store, open_store
from gan_ray.storage.uris import parse

NEXT = "next"
"""Stands for the first free integer when publishing."""
NEWEST = "newest"
"""Stands for the largest integer where versions are followed."""


def publish(bundle: str | Path, registry: str, *, version: str = "") -> str:
    """Put a bundle into a registry and give its reference `name@version`.

    The version is the bundle's own, the given one, or with `next` the newest integer: the one that
    has this content already, or else the first free one.

    Raises:
        ArtifactError: the bundle is unsound, or the version has other content.
        StorageError: the registry cannot be written.
    """
    manifest = load_bundle(bundle).manifest
    contents = read_verified(Path(bundle))[1]
    store = open_store(registry)
    number = 0
    if version == NEXT:
        number = max([int(v) for v in _versions(store, manifest.name) if v.isdecimal()] or [1])
    while True:
        wanted = str(number) if number else version or manifest.version
        manifest = dataclasses.replace(manifest, version=wanted)
        if _put(store, manifest, contents):
            return manifest.reference
        if not number:
            raise ArtifactError(
                f"{manifest.reference} in {store.uri} has other content, and a version never "
                f"changes: publish under another version (--version {NEXT}), or remove "
                f"{manifest.name}/{wanted} if nobody uses it"
            )
        number += 1


def follows(reference: str) -> bool:
    """Tell whether a reference is `name@newest`: which version that is changes with time."""
    name, _, version = reference.rpartition("@")
    return version == NEWEST and is_plain_name(name) and not Path(reference).is_dir()


def candidates(reference: str, registry: str | None) -> list[str]:
    """Give what a reference can stand for, the best first: of `name@newest` all integer versions.

    Any other stands for itself alone. Nothing is read but the listing.

    Raises:
        ArtifactError: `name@newest`, and there is no integer version.
        ConfigError: the same without a registry.
        StorageError: the registry cannot be read.
    """
    if not follows(reference):
        return [reference]
    name = reference.rpartition("@")[0]
    if registry is None:
        raise ConfigError(f"'{reference}' needs a registry to be looked up in: give one")
    versions = [v for v in _versions(open_store(registry), name) if v.isdecimal()]
    if not versions:
        raise ArtifactError(
            f"no version of '{name}' in {registry} is an integer, so none is the newest: publish "
            f"one with --version {NEXT}, or name the version"
        )
    return [f"{name}@{version}" for version in sorted(versions, key=int, reverse=True)]


def resolve(reference: str, registry: str | None = None, *, cache: Path | None = None) -> Path:
    """Give the local folder of a bundle, every digest verified.

    `reference` is a folder, an address of one (`s3://bucket/registry/name/version`), or
    `name@version` in `registry`. What is not on this machine is kept in `cache` (default: gan-ray
    in the user's cache folder) under its content's name.

    Raises:
        ArtifactError: no such bundle, or it is damaged.
        ConfigError: `name@version` without a registry, or no such form.
        StorageError: the registry cannot be read.
    """
    name, at, version = reference.rpartition("@")
    if not at or "/" in reference or Path(reference).is_dir():
        return _fetch(open_store(reference), cache)[0]
    if registry is None:
        raise ConfigError(
            f"'{reference}' needs a registry to be looked up in: give one (a directory or "
            "s3://bucket/prefix), or the bundle's folder"
        )
    if not (is_plain_name(name) and is_plain_name(version)):
        raise ConfigError(f"'{reference}' cannot name a bundle: write name@version")
    top = open_store(registry)
    if not top.exists(f"{name}/{version}/{MANIFEST}"):
        known = [f"{name}@{v}" for v in _versions(top, name)]
        raise ArtifactError(f"{unknown('bundle', reference, known)} Registry: {top.uri}")
    path, manifest = _fetch(open_store(f"{top.uri}/{name}/{version}"), cache)
    if manifest.reference != reference:
        raise ArtifactError(
            f"{top.uri}/{name}/{version} holds {manifest.reference}: somebody moved it there; "
            "publish it again under its own name"
        )
    return path


def _put(store: Store, manifest: Manifest, contents: dict[str, bytes]) -> bool:
    """Write what is absent, the manifest last; False when something else is there."""
    for name, data in {**contents, MANIFEST: manifest.to_json()}.items():
        key = f"{manifest.name}/{manifest.version}/{name}"
        if not store.put(key, data, if_absent=True) and store.get(key) != data:
            return False
    return True


def _versions(store: Store, name: str) -> list[str]:
    keys = (entry.key.split("/") for entry in store.list(f"{name}/"))
    return sorted({key[1] for key in keys if len(key) == 3 and key[2] == MANIFEST})


def _fetch(store: Store, cache: Path | None) -> tuple[Path, Manifest]:
    location = parse(store.uri)
    if location.scheme == "file":
        path = Path(location.path)
        return path, read_verified(path)[0]
    try:
        manifest = parse_manifest(store.get(MANIFEST), f"{store.uri}/{MANIFEST}")
    except ObjectMissing as error:
        raise ArtifactError(f"{store.uri} is no bundle: {error}") from None
    path = (cache or _default_cache()) / f"{manifest.name}-{manifest.digest}"
    if path.exists():
        try:
            return path, read_verified(path)[0]
        except ArtifactError:  # damaged here, not there: fetch it again
            shutil.rmtree(path)
    try:
        with new_folder(path) as folder:
            (folder / MANIFEST).write_bytes(manifest.to_json())
            for name in manifest.files:
                store.download(name, folder / name)
            read_verified(folder)
    except (ArtifactError, ConfigError):
        if not path.exists():  # else another process fetched it in the meantime
            raise
    return path, read_verified(path)[0]


def _default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "gan-ray" / "bundles"
