"""The secondary learners: what they compute, how they are stored and how they are fitted."""
