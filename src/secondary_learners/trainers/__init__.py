"""transformers' and TRL's trainers with a filter."""
