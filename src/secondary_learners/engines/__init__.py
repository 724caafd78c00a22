"""Scoring a corpus where it is."""
