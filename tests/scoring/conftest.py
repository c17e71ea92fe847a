"""Property tests share a busy machine: an example may take its time, and draws repeat."""

from hypothesis import settings

settings.register_profile("shared", deadline=None, derandomize=True, database=None)
settings.load_profile("shared")
