"""Object storage: one small protocol, a local directory and S3."""

from gan_ray.storage.environment import environment
from gan_ray.storage.store import (
    Entry,
    ObjectMissing,
    ObjectTooLarge,
    ObjectUnusable,
    Store,
    open_store,
)
from gan_ray.storage.uris import AllowList, split_uri

__all__ = [
    "AllowList",
    "Entry",
    "ObjectMissing",
    "ObjectTooLarge",
    "ObjectUnusable",
    "Store",
    "environment",
    "open_store",
    "split_uri",
]
