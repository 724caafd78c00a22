"""Fine-tuning with and without a filter, at equal budgets. See `compare.compare`."""
