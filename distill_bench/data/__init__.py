"""Data sets: what a split is, where images come from, and how they are prepared and read."""
