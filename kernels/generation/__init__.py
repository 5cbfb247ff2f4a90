"""From a cell to kernel source: trace its step and the gradient of it, simplify, print."""
