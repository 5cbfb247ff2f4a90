"""`LSTMCell`, `GRUCell` and `RNNCell`: `torch.nn`'s modules of one time step, run through the same dispatch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from seqnets.cells import Cell
from seqnets.cells import gru as gru_cell
from seqnets.cells import lstm as lstm_cell
from seqnets.dispatch import check_backend, dispatch
from seqnets.layers.torch_like import rnn_cell
from seqnets.recurrence import Problem, Weights


class _OneStep(nn.RNNCellBase):
    """What the three share: a sequence of one step over torch's own parameters."""

    cell: Cell
    backend: str | None

    def _run(self, input: Tensor, state: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
        name = type(self).__name__
        if input.dim() not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(f"{name}: input has {input.shape[-1]} features, expected input_size {self.input_size}")
        expected = (*input.shape[:-1], self.hidden_size)
        if state is None:
            state = tuple(input.new_zeros(expected) for _ in self.cell.states)
        for tensor in state:
            if tensor.shape != expected:
                raise RuntimeError(f"{name}: Expected hidden of size {expected}, got {tuple(tensor.shape)}")
        batched = input.dim() == 2
        rows = input if batched else input.unsqueeze(0)
        initial = tuple((s if batched else s.unsqueeze(0)).unsqueeze(0) for s in state)
        weights = Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        result = dispatch(Problem(self.cell, rows.unsqueeze(0), initial, ((weights,),)), self.backend)
        return tuple(s.squeeze(0) if batched else s.squeeze(0).squeeze(0) for s in result.state)


class LSTMCell(_OneStep, nn.LSTMCell):
    """`torch.nn.LSTMCell`, plus ``backend=``: ``forward(input, (h, c)=None) -> (h, c)``."""

    def __init__(self, *args: Any, backend: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cell, self.backend = lstm_cell, check_backend(backend)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> Any:
        return self.cell.State(*self._run(input, None if hx is None else tuple(hx)))


class GRUCell(_OneStep, nn.GRUCell):
    """`torch.nn.GRUCell`, plus ``backend=``: ``forward(input, h=None) -> h``."""

    def __init__(self, *args: Any, backend: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cell, self.backend = gru_cell, check_backend(backend)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._run(input, None if hx is None else (hx,))[0]


class RNNCell(_OneStep, nn.RNNCell):
    """`torch.nn.RNNCell`, plus ``backend=``: ``forward(input, h=None) -> h``."""

    def __init__(self, *args: Any, backend: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cell, self.backend = rnn_cell(self.nonlinearity), check_backend(backend)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._run(input, None if hx is None else (hx,))[0]
