"""A task as what it changes of a base model."""
