"""A base model from a package of the package index."""
