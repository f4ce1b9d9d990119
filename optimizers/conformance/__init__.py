"""Checks that every optimizer must pass: python -m optimizers.conformance NAME."""
