"""The one HTTP client that calls out, and the rules on whom it may call."""
