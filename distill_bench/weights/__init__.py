"""Trained weights: published files, file formats, download and lookup. The embedded teachers lie here too."""
