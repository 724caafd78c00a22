"""Classification tasks: reading, encoding, a classifier, batches, updates, metrics."""
