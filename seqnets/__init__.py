"""Provides recurrent layers for research: a cell is written once, and everything else is derived from it.

>>> from seqnets import LSTM                  # in place of torch.nn.LSTM
>>> from seqnets import cell, Recurrent       # a cell of your own, and a layer over it
"""

from seqnets.cells import CELLS, Cell, cell, get_cell
from seqnets.dispatch import use_backend
from seqnets.layers import GRU, LSTM, RNN, GRUCell, LSTMCell, Recurrent, RNNCell, explain
from seqnets.masks import Mask

__version__ = "0.1.0"

__all__ = [
    "CELLS",
    "GRU",
    "LSTM",
    "RNN",
    "Cell",
    "GRUCell",
    "LSTMCell",
    "Mask",
    "RNNCell",
    "Recurrent",
    "cell",
    "explain",
    "get_cell",
    "use_backend",
]
