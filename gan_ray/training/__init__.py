"""The one training loop, and what drives it on a cluster."""
