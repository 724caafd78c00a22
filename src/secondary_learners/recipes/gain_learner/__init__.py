"""A learner of information gain: corpus, labels, fit, comparison."""
