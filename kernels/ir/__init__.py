"""From a cell to a graph that no target shapes: trace the step and its gradient, simplify, choose what to save."""
