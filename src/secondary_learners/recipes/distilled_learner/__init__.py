"""A learner from labels that others published."""
