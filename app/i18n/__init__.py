"""The language of what people read on pages."""
