"""Turns what the user typed into a plan of trials."""
