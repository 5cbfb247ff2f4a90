"""Provides data sets for training: their sources, the encoders that turn them into tensors, and resumable loaders."""

from seqnets.data.batch import Batch
from seqnets.data.chorales import Chorales
from seqnets.data.corpora import PennTreebank, TinyShakespeare, WikiText2
from seqnets.data.encoders import Encoder, encoder_from_dict
from seqnets.data.images import ImageEncoder
from seqnets.data.imdb import IMDB
from seqnets.data.loader import ResumableLoader
from seqnets.data.mnist import MNIST, ScikitDigits
from seqnets.data.multi30k import Multi30k
from seqnets.data.sentences import SentenceEncoder
from seqnets.data.series import Series
from seqnets.data.synthetic import AddingProblem, CopyMemory
from seqnets.data.text import TextEncoder

__all__ = [
    "IMDB", "MNIST", "AddingProblem", "Batch", "Chorales", "CopyMemory", "Encoder", "ImageEncoder", "Multi30k",
    "PennTreebank", "ResumableLoader", "ScikitDigits", "SentenceEncoder", "Series", "TextEncoder", "TinyShakespeare",
    "WikiText2", "encoder_from_dict",
]  # fmt: skip
