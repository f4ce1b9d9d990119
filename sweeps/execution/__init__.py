"""Runs trials: in this process, in a supervised worker, on Ray, or on several hosts."""
