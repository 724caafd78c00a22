"""Comparisons over seeds: filters, multistage filtering, trials; their statistics and plots."""
