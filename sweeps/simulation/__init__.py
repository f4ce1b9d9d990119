"""Simulation of the whole protocol on surfaces fitted to tuning trials."""
