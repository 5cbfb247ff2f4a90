"""IMDB film reviews: the forms they come in, the places that have them, and the data module."""

from seqnets.data.imdb.imdb import IMDB

__all__ = ["IMDB"]
