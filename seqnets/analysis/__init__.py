"""Pictures of what was learnt, each drawn by a callback into the run's folder."""
