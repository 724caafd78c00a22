"""A small base model, trained from text."""
