"""Provides `LSTM`, `GRU` and `RNN`, drop-in replacements of `torch.nn`'s layers: only the import changes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from seqnets.cells import Cell, rnn_relu, rnn_tanh
from seqnets.cells import gru as gru_cell
from seqnets.cells import lstm as lstm_cell
from seqnets.layers.recurrent import Recurrent


class TorchLike(Recurrent, nn.RNNBase):
    """Adapts `Recurrent` to torch's interface: its constructor, its forward, and a bare tensor for a single state.

    The layers are instances of ``nn.RNNBase``, but not of ``nn.LSTM`` and so on: torch.compile breaks the graph at
    subclasses of those.
    """

    mode: str

    def _build(self, cell: Cell, *arguments: Any, **options: Any) -> None:
        if "proj_size" in options:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        Recurrent.__init__(self, cell, *arguments, **options)

    # RNNBase updates a second list of its weights in these methods; here weights are read at each forward
    __setattr__ = nn.Module.__setattr__  # type: ignore[assignment]
    __setstate__ = nn.Module.__setstate__
    _apply = nn.Module._apply
    _replicate_for_data_parallel = nn.Module._replicate_for_data_parallel

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    @property
    def _flat_weights(  # type: ignore[override]
        self,
    ) -> list[nn.Parameter]:
        return [weight for weights in self.all_weights for weight in weights]

    @property
    def _flat_weights_names(  # type: ignore[override]
        self,
    ) -> list[str]:
        return [name for names in self._weight_names for name in names]

    @property
    def _all_weights(  # type: ignore[override]
        self,
    ) -> list[list[str]]:
        return self._weight_names

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Any = None,
        lengths: Tensor | None = None,
        *,
        return_all_states: bool | None = None,
    ) -> Any:
        """Run the whole sequence as torch's layer does; see `Recurrent.forward` for lengths and return_all_states."""
        y, state, *rest = super().forward(input, hx, lengths, return_all_states=return_all_states)
        return y, state if len(state) > 1 else state[0], *rest


class LSTM(TorchLike):
    """Replaces `torch.nn.LSTM`. The equations are in the docstring of its cell, `seqnets.cells.lstm`.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype: as in
            `torch.nn.LSTM`.
        recurrent_bias, num_heads, init, learn_state, return_all_states, recompute, backend: as in `Recurrent`.

    ``forward(input, (h_0, c_0)=None, lengths=None) -> (output, (h_n, c_n))``; the pair is a NamedTuple ``(h, c)``. The
    shapes are those of `torch.nn.LSTM`; see `Recurrent.forward`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        self.mode = "LSTM"
        self._build(
            lstm_cell, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            proj_size, device, dtype, **options,
        )  # fmt: skip


class GRU(TorchLike):
    """Replaces `torch.nn.GRU`. The equations are in the docstring of its cell, `seqnets.cells.gru`.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype: as in
            `torch.nn.GRU`.
        recurrent_bias, num_heads, init, learn_state, return_all_states, recompute, backend: as in `Recurrent`.

    ``forward(input, h_0=None, lengths=None) -> (output, h_n)``. The shapes are those of `torch.nn.GRU`; see
    `Recurrent.forward`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        self.mode = "GRU"
        self._build(
            gru_cell, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            0, device, dtype, **options,
        )  # fmt: skip


class RNN(TorchLike):
    """Replaces `torch.nn.RNN`. Its cell is `seqnets.cells.rnn_tanh` or `rnn_relu`, depending on `nonlinearity`.

    Args:
        input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional, device, dtype:
            as in `torch.nn.RNN`.
        recurrent_bias, num_heads, init, learn_state, return_all_states, recompute, backend: as in `Recurrent`.

    ``forward(input, h_0=None, lengths=None) -> (output, h_n)``. The shapes are those of `torch.nn.RNN`; see
    `Recurrent.forward`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        self.nonlinearity = nonlinearity
        self.mode = f"RNN_{nonlinearity.upper()}"
        self._build(
            rnn_cell(nonlinearity), input_size, hidden_size, num_layers, bias, batch_first, dropout,
            bidirectional, 0, device, dtype, **options,
        )  # fmt: skip


def rnn_cell(nonlinearity: str) -> Cell:
    """Return the simple recurrent cell with this nonlinearity.

    Raises:
        ValueError: If it is neither ``"tanh"`` nor ``"relu"``.
    """
    cells = {"tanh": rnn_tanh, "relu": rnn_relu}
    if nonlinearity not in cells:
        raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
    return cells[nonlinearity]
