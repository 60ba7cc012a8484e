"""Messages, under way."""
