"""Provides `Recurrent`, a stack of recurrent layers over any cell."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from seqnets.cells import Cell, get_cell
from seqnets.conditions import PLAIN
from seqnets.dispatch import Explanation, check_backend, dispatch, explain_problem
from seqnets.layers.initialization import INITIALIZERS
from seqnets.layers.packing import check_lengths, repack, unpack
from seqnets.masks import Mask
from seqnets.recurrence import Problem, Weights, active_steps, check_dense, check_weight


class Recurrent(nn.Module):
    """Runs a stack of recurrent layers over any cell, with the options, parameter names and shapes of `torch.nn.LSTM`.

    Args:
        cell: a `Cell`, a name in `seqnets.CELLS`, or ``"package.module:cell"``.
        input_size: I, the number of input features.
        hidden_size: H, the number of features of each state.
        num_layers: L, the number of layers. Each layer after the first reads the outputs of the previous one.
        bias: whether the gates have biases.
        batch_first: whether input and output are ``(B, T, ·)`` instead of ``(T, B, ·)``. States are not affected.
        dropout: probability of dropout on the outputs of each layer but the last.
        bidirectional: whether a second direction reads each sequence from its end. Then D = 2, and the outputs of both
            directions are concatenated.
        proj_size: P, if positive: the first state is projected to this size after each step. The step must not read its
            first state itself (that of an LSTM does not).
        device, dtype: device and dtype of the parameters.
        recurrent_bias: whether the recurrent projection has a bias of its own (``bias_hh``) in addition to ``bias_ih``.
            If False, there is one bias per gate, as in Keras.
        num_heads: N, a divisor of H. With more than one head, the recurrence is block-diagonal: each head owns H/N
            hidden units and sees only those of the previous step (as in xLSTM, arXiv:2405.04517). It cannot be combined
            with proj_size.
        init: ``"torch"`` or ``"keras"``; see `seqnets.layers.initialization`.
        learn_state: whether the initial states are parameters ``(L·D, H)``, the first ``(L·D, P)``, that are named
            ``initial_h`` and so on and start at 0. They are used if no state is passed.
        masks: for a cell with masks, how to sample each of them: ``{"drop": Mask(0.25, per="sequence")}``.
        return_all_states: whether forward also returns the last layer's states at every step.
        recompute: whether the backward pass of the ``triton`` backend recomputes the recurrent projections, in one
            product, instead of keeping them from the forward pass. This takes more time and saves memory: G·H numbers
            per row and step.
        backend: ``"auto"`` or the name of a backend. None leaves the choice to `use_backend` and ``SEQNETS_BACKEND``.

    Layer k has these parameters for each direction (with the suffix ``_reverse`` for the second):
    ``weight_ih_lk (G·H, I)``, or ``(G·H, D·P)`` after the first layer; ``weight_hh_lk (G·H, P)``;
    ``bias_ih_lk (G·H,)``; ``bias_hh_lk (G·H,)``; ``weight_hr_lk (P, H)`` with ``proj_size``; and ``(H,)`` for each
    parameter of the cell, such as ``gamma_lk``. Without ``proj_size``, P is H. With N heads, ``weight_hh_lk`` is
    ``(G·H, H/N)``: its row for gate g, head n and unit j is ``g·H + n·H/N + j``.

    Raises:
        CellError: If the cell does not exist.
        BackendError: If there is no such backend.
        TypeError, ValueError: If an option has the wrong type, is out of range, or does not fit the cell or another
            option.
    """

    def __init__(
        self,
        cell: Cell | str,
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
        *,
        recurrent_bias: bool = True,
        num_heads: int = 1,
        init: str = "torch",
        learn_state: bool = False,
        masks: Mapping[str, Mask] | None = None,
        return_all_states: bool = False,
        recompute: bool = False,
        backend: str | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self.cell = get_cell(cell)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self.recurrent_bias = recurrent_bias
        self.num_heads = num_heads
        self.init = init
        self.learn_state = learn_state
        self.masks = {} if masks is None else masks
        self.return_all_states = return_all_states
        self.recompute = recompute
        self.backend = backend if backend is None else check_backend(backend)
        self._check_options()
        self._weight_names = [list(self._build_direction(k, d, device, dtype)) for k, d in self._directions()]
        if learn_state:
            for name, size in self._state_sizes():
                initial = torch.zeros(len(self._weight_names), size, device=device, dtype=dtype)
                self.register_parameter(f"initial_{name}", nn.Parameter(initial))
        self.reset_parameters()

    # ---- construction

    def _check_options(self) -> None:
        for name in ("bias", "batch_first", "bidirectional", "recurrent_bias", "learn_state", "recompute"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        sizes = (("input_size", 1), ("hidden_size", 1), ("num_layers", 1), ("proj_size", 0), ("num_heads", 1))
        for name, least in sizes:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not isinstance(self.dropout, numbers.Real) or isinstance(self.dropout, bool) or not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout must be a number in [0, 1], the probability of a zero, got {self.dropout!r}")
        self.dropout = float(self.dropout)
        if self.dropout and self.num_layers == 1:
            warnings.warn(
                f"dropout={self.dropout} acts between layers, and with num_layers=1 there is no such place",
                stacklevel=3,
            )
        if self.proj_size and self.proj_size >= self.hidden_size:
            raise ValueError(f"proj_size must be smaller than hidden_size {self.hidden_size}, got {self.proj_size}")
        if self.proj_size and not self.cell.allows_projection():
            raise ValueError(
                f"proj_size does not go with the cell {self.cell.name!r}: its step reads its first state, "
                f"{self.cell.states[0]!r}, which would be {self.proj_size} wide where the gates are {self.hidden_size}"
            )
        if self.hidden_size % self.num_heads:
            divisors = ", ".join(str(n) for n in range(1, self.hidden_size + 1) if self.hidden_size % n == 0)
            raise ValueError(
                f"num_heads must divide hidden_size {self.hidden_size}, got {self.num_heads}; these do: {divisors}"
            )
        if self.proj_size and self.num_heads > 1:
            raise ValueError(
                f"proj_size={self.proj_size} does not go with num_heads={self.num_heads}: a projection mixes the units "
                "that heads keep apart; leave one of them out"
            )
        if self.init not in INITIALIZERS:
            raise ValueError(f"unknown init {self.init!r}; choose from {', '.join(INITIALIZERS)}")
        valid = isinstance(self.masks, Mapping) and all(isinstance(mask, Mask) for mask in self.masks.values())
        if not valid or set(self.masks) != set(self.cell.masks):
            raise ValueError(
                f"the cell {self.cell.name!r} has the masks {list(self.cell.masks)}, but masks= is {self.masks!r}; "
                "give a mapping with a seqnets.Mask(p, per='sequence' or 'step') for each"
            )

    def _directions(self) -> Iterator[tuple[int, int]]:
        return ((layer, d) for layer in range(self.num_layers) for d in range(self.num_directions))

    def _build_direction(self, layer: int, d: int, device: Any, dtype: Any) -> Iterator[str]:
        """Register the parameters of one direction of one layer in torch's order, and yield the names of its weights.

        The cell's own parameters are registered too, but their names are not yielded.
        """
        gates, H, P = self.cell.gates, self.hidden_size, self.output_size
        suffix = _suffix(layer, d)
        shapes = {
            "weight_ih": (gates * H, self.input_size if layer == 0 else P * self.num_directions),
            "weight_hh": (gates * H, P // self.num_heads),
            **({"bias_ih": (gates * H,)} if self.bias else {}),
            **({"bias_hh": (gates * H,)} if self.bias and self.recurrent_bias else {}),
            **({"weight_hr": (P, H)} if self.proj_size else {}),
        }
        for name, shape in shapes.items():
            self.register_parameter(name + suffix, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
            yield name + suffix
        for name in self.cell.params:
            self.register_parameter(name + suffix, nn.Parameter(torch.empty(H, device=device, dtype=dtype)))

    @property
    def num_directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """Return P, the number of output features of one direction."""
        return self.proj_size or self.hidden_size

    def _state_sizes(self) -> list[tuple[str, int]]:
        first, H = self.output_size, self.hidden_size
        return [(name, H if n else first) for n, name in enumerate(self.cell.states)]

    # ---- parameters, as code written for torch.nn.LSTM looks for them

    def reset_parameters(self) -> None:
        """Initialize the weights by `init`, and reset the cell's parameters and the learned states."""
        for weights in self.direction_weights():
            INITIALIZERS[self.init](self.cell, weights)
            for value, initial in zip(weights.params, self.cell.params.values(), strict=True):
                nn.init.constant_(value, initial)
        if self.learn_state:
            for name in self.cell.states:
                nn.init.zeros_(getattr(self, f"initial_{name}"))

    @property
    def all_weights(self) -> list[list[nn.Parameter]]:
        """Return the weights and biases per layer and direction, in torch's order, without a cell's own parameters."""
        return [[getattr(self, name) for name in names] for names in self._weight_names]

    def flatten_parameters(self) -> None:
        """Do nothing; this exists for code written for `torch.nn.LSTM`.

        Weights are read at each forward, wherever they are in memory.
        """

    def direction_weights(self) -> list[Weights]:
        """Return the current weights of each direction of each layer, including parametrized and replaced ones."""
        fields = [name.partition("_l0")[0] for name in self._weight_names[0]]
        D, parameters, read = self.num_directions, self._parameters, []
        for k, weights in enumerate(self._weight_names):
            suffix = _suffix(*divmod(k, D))
            names = [*weights, *[name + suffix for name in self.cell.params]]
            if parameters.keys() >= set(names):  # `nn.Module.__getattr__` takes several times as long
                found: list[Any] = list(map(parameters.get, names))
            else:  # some are parametrized, or replaced by plain tensors
                found = [getattr(self, name) for name in names]
            own: dict[str, Any] = dict(zip(fields, found, strict=False))
            read.append(Weights(**own, params=tuple(found[len(fields) :])))
        return read

    # ---- running

    def forward(
        self,
        x: Tensor | PackedSequence,
        state: Any = None,
        lengths: Tensor | None = None,
        *,
        return_all_states: bool | None = None,
    ) -> Any:
        """Run the whole sequence.

        Args:
            x: ``(T, B, I)``, ``(B, T, I)`` with ``batch_first``, unbatched ``(T, I)``, or a `PackedSequence`.
            state: initial states, each ``(L·D, B, H)`` (unbatched ``(L·D, H)``; P instead of H for the first): a tuple
                in the order of the cell's states, or a tensor if there is only one. None means the learned states, or
                zeros.
            lengths: ``(B,)`` integers in 0..T. A finished row keeps its state and outputs zeros, and the reverse
                direction starts at the end of each row. Entries of `x` beyond the lengths are ignored.
            return_all_states: if not None, overrides the option of the layer.

        Returns:
            ``(y, state)``. y has the form of `x`, with D·P features. state is a NamedTuple of ``(L·D, B, H)``, the
            first ``(L·D, B, P)``: the states after the last step of each sequence. With ``return_all_states`` a third
            item is returned, the last layer's states after every step: a NamedTuple of ``(T, B, D·H)``, the first
            ``(T, B, D·P)`` (batch first if `x` is, and padded if `x` is packed).

        Raises:
            BackendError: If the requested backend cannot serve. The message says why, and which can.
            TypeError, ValueError, RuntimeError: If types, shapes, devices or dtypes are wrong, as in `torch.nn.LSTM`.
        """
        problem = self._problem(x, state, lengths, return_all_states)
        result = dispatch(self._draw_masks(problem, self.training), self.backend)
        batched = isinstance(x, PackedSequence) or x.dim() == 3
        y: Any = repack(result.y, x) if isinstance(x, PackedSequence) else self._present(result.y, batched)
        final = self.cell.State(*(result.state if batched else [s.squeeze(1) for s in result.state]))
        if result.all_states is None:
            return y, final
        return y, final, self.cell.State(*[self._present(s, batched) for s in result.all_states])

    def step(self, x_t: Tensor, state: Any = None) -> Any:
        """Run one time step, for streaming: ``layer.step(x_t, state) -> (y_t, state)``.

        Apart from random dropout and masks, running all steps one by one equals one call with the whole sequence.

        Args:
            x_t: ``(B, I)``, or ``(I,)`` if unbatched.
            state: the states, as `forward` takes and returns them.

        Returns:
            The output, ``(B, P)`` or ``(P,)``, and the new states.

        Raises:
            RuntimeError: If the layer is bidirectional, or samples masks per sequence in training, or if `x_t` has a
                wrong shape.
        """
        if self.bidirectional:
            raise RuntimeError("a bidirectional layer reads from the sequence's end too, so it cannot run step by step")
        if self.training and any(mask.per == "sequence" for mask in self.masks.values()):
            raise RuntimeError(
                "masks drawn per sequence cannot be kept from step to step: call .eval() first, or forward"
            )
        if not isinstance(x_t, Tensor) or x_t.dim() not in (1, 2):
            raise RuntimeError(
                f"one step takes x_t of shape (B, {self.input_size}) or ({self.input_size},), got {_shape(x_t)}"
            )
        time = int(self.batch_first and x_t.dim() == 2)
        y, new = self(x_t.unsqueeze(time), state, return_all_states=False)
        return y.squeeze(time), new

    def explain(
        self,
        x: Tensor | PackedSequence,
        state: Any = None,
        lengths: Tensor | None = None,
        *,
        return_all_states: bool | None = None,
    ) -> Explanation:
        """Explain which backend would run this call, and why the others would not."""
        problem = self._problem(x, state, lengths, return_all_states)
        return explain_problem(self._draw_masks(problem, training=False), self.backend)  # mean masks, no sampling

    def _present(self, tensor: Tensor, batched: bool) -> Tensor:
        """Convert ``(T, B, ·)`` to the layout of the caller's input."""
        if not batched:
            return tensor.squeeze(1)
        return tensor.transpose(0, 1) if self.batch_first else tensor

    def _problem(self, x: Any, state: Any, lengths: Tensor | None, all_states: bool | None) -> Problem:
        """Check the arguments of a call, and return the problem for the backends, still without masks.

        Its input is time first, batched, padded, and zero beyond the lengths.
        """
        weights = self.direction_weights()
        self._check_weights(weights)
        if isinstance(x, PackedSequence):
            if lengths is not None:
                raise ValueError("a PackedSequence has its own lengths: pass either it or lengths=, not both")
            check_dense(x.data)
            self._check_input(x.data, weights[0].weight_ih)
            x, lengths = unpack(x)
            batched = True
        else:
            if not isinstance(x, Tensor):
                raise TypeError(f"input must be a tensor or a PackedSequence, got {type(x).__name__}")
            check_dense(x)
            if x.dim() not in (2, 3):
                raise ValueError(f"{type(self).__name__}: Expected input to be 2D or 3D, got {x.dim()}D instead")
            self._check_input(x, weights[0].weight_ih)
            batched = x.dim() == 3
            if not batched:
                x = x.unsqueeze(1)
            elif self.batch_first:
                x = x.transpose(0, 1)
            if lengths is not None:
                if not batched:
                    raise ValueError("unbatched input is one whole sequence: it takes no lengths=")
                lengths = check_lengths(lengths, x.shape[0], x.shape[1])
                x = torch.where(active_steps(lengths, x.shape[0], x.device), x, 0.0)
        initial = self._initial_state(state, x, batched)
        D = self.num_directions
        layers = tuple([tuple(weights[k : k + D]) for k in range(0, len(weights), D)])
        every = self.return_all_states if all_states is None else all_states
        dropout = self.dropout if self.training else 0.0
        return Problem(self.cell, x, initial, layers, lengths, dropout, every, self.recompute)

    def _draw_masks(self, problem: Problem, training: bool) -> Problem:
        if not self.masks:
            return problem
        steps, batch = problem.x.shape[:2]

        def drawn(weights: Weights) -> Weights:
            draws = (
                self.masks[name].draw(steps, batch, self.hidden_size, problem.x, training) for name in self.cell.masks
            )
            return weights._replace(masks=tuple(draws))

        return problem._replace(layers=tuple(tuple(drawn(w) for w in layer) for layer in problem.layers))

    def _check_weights(self, weights: Sequence[Weights]) -> None:
        H, P, D, like = self.hidden_size, self.output_size, self.num_directions, weights[0].weight_ih
        device, dtype, rows = like.device, like.dtype, self.cell.gates * H
        shapes = [(rows, self.input_size), (rows, P // self.num_heads), (rows,), (rows,), (P, H)]
        for k, w in enumerate(weights):
            if k == D:
                shapes[0] = (rows, P * D)
            for n, shape in enumerate(shapes):
                t: Any = w[n]
                # checked inline, because every call of the layer gets here
                if t is not None and (
                    t.shape != shape
                    or t.device != device
                    or t.dtype is not dtype
                    or (type(t) in PLAIN and t.layout is not torch.strided)
                ):
                    check_weight(Weights._fields[n] + _suffix(*divmod(k, D)), t, shape, like)
            for name, t in zip(self.cell.params, w.params, strict=True):
                check_weight(name + _suffix(*divmod(k, D)), t, (H,), like, any_dtype=True)

    def _check_input(self, x: Tensor, weight: Tensor) -> None:
        if x.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.shape[-1]}"
            )
        if x.device != weight.device:
            raise RuntimeError(f"input is on {x.device} but the layer is on {weight.device}; move one with .to(...)")
        if x.dtype != weight.dtype and not torch._C._is_any_autocast_enabled():
            way_out = f"input.to({weight.dtype})" + (f" or layer.to({x.dtype})" if x.is_floating_point() else "")
            raise ValueError(f"input has dtype {x.dtype} but the layer has {weight.dtype}; convert one: {way_out}")

    def _initial_state(self, state: Any, x: Tensor, batched: bool) -> tuple[Tensor, ...]:
        batch, rows = x.shape[1], self.num_layers * self.num_directions
        names = self.cell.states
        if state is None:
            if self.learn_state:
                learned = {f"initial_{name}": size for name, size in self._state_sizes()}
                for name, size in learned.items():
                    check_weight(name, getattr(self, name), (rows, size), x, any_dtype=True)
                return tuple(getattr(self, name).unsqueeze(1).expand(-1, batch, -1) for name in learned)
            return tuple([x.new_zeros(rows, batch, size) for _, size in self._state_sizes()])
        if not isinstance(state, Tensor | list | tuple):
            raise TypeError(f"the state is a tensor, or a tuple of {', '.join(names)}, not {type(state).__name__}")
        state = (state,) if isinstance(state, Tensor) else tuple(state)
        if len(state) != len(names):
            raise RuntimeError(
                f"{self.cell.name} has the states {', '.join(names)}; the state passed has {len(state)} entries"
            )
        checked = []
        for tensor, (name, size) in zip(state, self._state_sizes(), strict=True):
            expected = (rows, batch, size) if batched else (rows, size)
            if not isinstance(tensor, Tensor) or tensor.shape != expected:
                raise RuntimeError(f"Expected state {name!r} of size {expected}, got {_shape(tensor)}")
            check_dense(tensor, f"state {name!r}")
            if tensor.device != x.device:
                raise RuntimeError(f"state {name!r} is on {tensor.device} but the input is on {x.device}")
            if tensor.dtype != x.dtype and not torch._C._is_any_autocast_enabled():
                raise RuntimeError(f"state {name!r} has dtype {tensor.dtype} but the input has {x.dtype}")
            checked.append(tensor if batched else tensor.unsqueeze(1))
        return tuple(checked)

    def extra_repr(self) -> str:
        shown: list[str] = [self.cell.name] if type(self) is Recurrent else []
        shown += [str(self.input_size), str(self.hidden_size)]
        defaults: Sequence[tuple[str, Any]] = (
            ("proj_size", 0), ("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0.0),
            ("bidirectional", False), ("recurrent_bias", True), ("num_heads", 1), ("init", "torch"),
            ("learn_state", False), ("masks", {}), ("return_all_states", False), ("recompute", False),
            ("backend", None),
        )  # fmt: skip
        shown += [f"{name}={getattr(self, name)!r}" for name, default in defaults if getattr(self, name) != default]
        return ", ".join(shown)


def _suffix(layer: int, d: int) -> str:
    """Return the suffix of parameter names of one direction of a layer, as in torch."""
    return f"_l{layer}_reverse" if d else f"_l{layer}"


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
