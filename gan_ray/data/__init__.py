"""What a data set offers, from bytes to rows of a global batch."""
