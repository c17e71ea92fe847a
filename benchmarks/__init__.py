"""Speed and quality, printed as tables and JSON; nothing here asserts a time."""
