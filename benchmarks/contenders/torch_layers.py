"""Maps cells to the classes of `torch.nn` that compute the same."""

from typing import Any

from torch import nn

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN, "rnn_relu": nn.RNN}
SINGLE = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn_tanh": nn.RNNCell, "rnn_relu": nn.RNNCell}


def options_of(cell: str) -> dict[str, Any]:
    """Return the arguments with which torch's classes compute this cell."""
    return {"nonlinearity": cell.removeprefix("rnn_")} if cell.startswith("rnn_") else {}
