"""Trials over seeds: their table, what it says, and how to spend a budget (arXiv 2002.06305)."""
