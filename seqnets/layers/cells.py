"""Provides `LSTMCell`, `GRUCell` and `RNNCell`: `torch.nn`'s single-step modules, run through the same dispatch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seqnets.cells import Cell
from seqnets.cells import gru as gru_cell
from seqnets.cells import lstm as lstm_cell
from seqnets.dispatch import Explanation, check_backend, dispatch, explain_problem
from seqnets.layers.torch_like import rnn_cell
from seqnets.recurrence import Problem, Weights, check_dense, check_weight


class OneStep(nn.RNNCellBase):
    """Implements what the three modules share: they run a sequence of one step with torch's own parameters."""

    cell: Cell
    backend: str | None

    def _set(self, cell: Cell, backend: str | None) -> None:
        self.cell = cell
        self.backend = backend if backend is None else check_backend(backend)

    def explain(self, input: Tensor, hx: Any = None) -> Explanation:
        """Explain which backend would run this call, and why the others would not."""
        return explain_problem(self._problem(input, hx), self.backend)

    def _run(self, input: Tensor, hx: Any) -> tuple[Tensor, ...]:
        problem = self._problem(input, hx)
        result = dispatch(problem, self.backend)
        # under autocast, torch's single-step modules return the dtype of their state, unlike its sequence modules
        states = [s.squeeze(0).to(i.dtype) for s, i in zip(result.state, problem.state, strict=True)]
        return tuple(s if input.dim() == 2 else s.squeeze(0) for s in states)

    def _problem(self, input: Tensor, hx: Any) -> Problem:
        name, names = type(self).__name__, self.cell.states
        if not isinstance(input, Tensor):
            raise TypeError(f"{name}: input must be a tensor, got {type(input).__name__}")
        check_dense(input)
        if input.dim() not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(f"{name}: input has {input.shape[-1]} features, expected input_size {self.input_size}")
        expected = (*input.shape[:-1], self.hidden_size)
        if hx is None:
            hx = tuple(input.new_zeros(expected) for _ in names)
        state = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        if len(state) != len(names):
            raise RuntimeError(f"{name} has the states {', '.join(names)}; the state passed has {len(state)} entries")
        autocast = torch._C._is_any_autocast_enabled()
        for tensor in state:
            check_dense(tensor, "hidden")
            if tensor.shape != expected:
                raise RuntimeError(f"{name}: Expected hidden of size {expected}, got {tuple(tensor.shape)}")
            if tensor.device != input.device:
                raise RuntimeError(f"{name}: hidden is on {tensor.device} but the input is on {input.device}")
            if tensor.dtype != input.dtype and not autocast:
                raise RuntimeError(f"{name}: hidden has dtype {tensor.dtype} but the input has {input.dtype}")
        if input.device != self.weight_ih.device:
            raise RuntimeError(f"{name}: input is on {input.device} but the weights are on {self.weight_ih.device}")
        if input.dtype != self.weight_ih.dtype and not autocast:
            raise RuntimeError(f"{name}: input has dtype {input.dtype} but the weights have {self.weight_ih.dtype}")
        if input.dim() == 1:
            input, state = input.unsqueeze(0), tuple(s.unsqueeze(0) for s in state)
        weights = Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        rows = self.cell.gates * self.hidden_size
        shapes = ((rows, self.input_size), (rows, self.hidden_size), (rows,), (rows,))
        for field, weight, shape in zip(Weights._fields, weights[:4], shapes, strict=False):
            if weight is not None:
                check_weight(field, weight, shape, weights.weight_ih)
        return Problem(self.cell, input.unsqueeze(0), tuple(s.unsqueeze(0) for s in state), ((weights,),))


class LSTMCell(OneStep, nn.LSTMCell):
    """Replaces `torch.nn.LSTMCell`, and adds ``backend=``.

    ``forward(input, (h, c)=None) -> (h, c)``, with input ``(B, I)`` or ``(I,)``, and h and c ``(B, H)`` or ``(H,)``.
    The result is a NamedTuple.
    """

    def __init__(self, *args: Any, backend: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._set(lstm_cell, backend)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> Any:
        return self.cell.State(*self._run(input, hx))


class GRUCell(OneStep, nn.GRUCell):
    """Replaces `torch.nn.GRUCell`, and adds ``backend=``.

    ``forward(input, h=None) -> h``, with input ``(B, I)`` or ``(I,)``, and h ``(B, H)`` or ``(H,)``.
    """

    def __init__(self, *args: Any, backend: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._set(gru_cell, backend)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._run(input, hx)[0]


class RNNCell(OneStep, nn.RNNCell):
    """Replaces `torch.nn.RNNCell`, and adds ``backend=``.

    ``forward(input, h=None) -> h``, with input ``(B, I)`` or ``(I,)``, and h ``(B, H)`` or ``(H,)``.
    """

    def __init__(self, *args: Any, backend: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._set(rnn_cell(self.nonlinearity), backend)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._run(input, hx)[0]
