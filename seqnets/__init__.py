"""Recurrent networks for research: a cell is written once, everything else is derived from it."""

__version__ = "0.1.0"
