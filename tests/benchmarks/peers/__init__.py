"""Contenders that each go wrong in their own way."""
