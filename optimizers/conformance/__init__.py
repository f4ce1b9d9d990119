"""Checks that every optimizer has to pass: python -m optimizers.conformance NAME."""
