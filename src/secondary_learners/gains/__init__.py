"""Information gain: how much one optimizer step on a context helps an objective."""
