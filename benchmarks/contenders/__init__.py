"""Who takes part: how each is set up, given work, run and asked what is left."""
