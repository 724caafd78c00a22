"""Text and token sequences: corpora, contexts, prompts with completions, splitting."""
