"""Close fine-tuning: how far weights move, tuning only some, binary masks, and tiny deltas."""
