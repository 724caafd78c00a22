"""Model cards: structured data, rendered late with the templates in cards/ (see its README)."""
