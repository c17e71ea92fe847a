"""Bundles: what is trained once and served for years."""
