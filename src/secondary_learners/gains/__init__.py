"""Information gain: how much one optimiser step on a context helps an objective."""
