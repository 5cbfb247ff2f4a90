"""Data sets for training: where the reviews come from, how text becomes ids, loaders that resume."""

from seqnets.data.batch import Batch
from seqnets.data.imdb import IMDB
from seqnets.data.loader import ResumableLoader
from seqnets.data.text import TextEncoder

__all__ = ["IMDB", "Batch", "ResumableLoader", "TextEncoder"]
