"""Learners and base models by name: the index of entries, and loading with verified digests."""
