"""Measurements. Each prints its method with its figures, and writes every sample."""
