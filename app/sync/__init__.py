"""Where a finished email goes: delivery to the team's own system."""
