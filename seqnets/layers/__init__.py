"""Provides the layers: counterparts of `torch.nn`'s recurrent modules, and `Recurrent` for any cell."""

from seqnets.layers.cells import GRUCell, LSTMCell, RNNCell
from seqnets.layers.explain import explain
from seqnets.layers.recurrent import Recurrent
from seqnets.layers.torch_like import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "Recurrent", "explain"]
