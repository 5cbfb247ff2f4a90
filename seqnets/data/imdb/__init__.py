"""Provides the IMDB film reviews: their file formats, their sources and the data module."""

from seqnets.data.imdb.imdb import IMDB

__all__ = ["IMDB"]
