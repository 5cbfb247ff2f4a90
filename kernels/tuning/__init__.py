"""Measures the plans of a schedule on the user's own GPU."""
