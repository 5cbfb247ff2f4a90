"""Pure functions that choose the schedule that runs a recurrence, and its tile, and say why."""
