"""Sweeps: the one place where the task and the optimizers meet."""
