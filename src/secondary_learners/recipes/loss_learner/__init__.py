"""A learner of training losses, and multistage filtering with it."""
