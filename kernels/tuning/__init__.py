"""Plans of a schedule measured on the user's own GPU."""
