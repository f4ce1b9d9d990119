"""Measuring how long things take."""
