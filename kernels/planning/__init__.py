"""Which schedule runs a recurrence, with which tile, and why: pure functions, and measurements of the user's own GPU."""
