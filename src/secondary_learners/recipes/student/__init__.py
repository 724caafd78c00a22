"""A learner that reads text, distilled from one of token ids on unlabelled text."""
