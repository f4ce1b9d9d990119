"""Trained weights: published files, file formats, download, lookup, and the embedded teachers."""
