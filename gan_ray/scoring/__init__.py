"""From evidence to scores, thresholds, metrics and selection."""
