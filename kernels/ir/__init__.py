"""Turns a cell into target-neutral graphs: traces the step and its gradient, simplifies, and chooses what to save."""
