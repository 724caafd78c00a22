"""Filtering: which candidate contexts are trained on. See `stream.filtered`."""
