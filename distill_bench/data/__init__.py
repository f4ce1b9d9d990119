"""Data sets: what a split is, where its images come from, how they are prepared and read."""
