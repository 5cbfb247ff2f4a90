"""Plans how to run a recurrence: chooses its schedule and tile, and says why."""
