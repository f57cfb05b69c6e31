"""Groups of settings, each with the checks that belong to it."""
