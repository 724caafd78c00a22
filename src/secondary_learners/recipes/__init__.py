"""Recipes: one TOML file says how a learner, or the small base model, is made."""
