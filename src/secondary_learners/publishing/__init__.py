"""Publishing to a Hub: audit first, then one commit and a tag."""
