"""Wrappers that any update rule may need."""
