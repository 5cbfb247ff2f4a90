"""Shows what happens inside a trained model as it reads: the gates and states of its recurrent layers at every step."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from seqnets import Recurrent
from seqnets.analysis.style import new_figure, plain
from seqnets.recurrence import Direction, layer_by_layer, project_input
from seqnets.scan import scan

SQUASHING = {
    "sigmoid",
    "tanh",
    "relu",
    "exp",
    "softplus",
    "logsigmoid",
    "hardsigmoid",
    "hardtanh",
    "clamp",
    "softmax",
    "erf",
}
GATES = ("#3b6fb6", "#c2504f", "#6b6b6b", "#3a8f7b", "#9a6fb0", "#d9822b")
MOST_COLUMNS = 120  # the most steps whose labels are readable


class Inside(NamedTuple):
    """Holds the gates and states of one direction of one recurrent layer, as it read one sequence.

    Attributes:
        name: the name of layer and direction, for titles.
        layer: the name of the module that they belong to.
        gates: name -> ``(T, H)``, the result of the cell's nonlinearity: for a sigmoid, from 0 (closed) to 1 (open).
        states: name -> ``(T, H)``, after each step.
        reverse: whether it read from the end.
    """

    name: str
    layer: str
    gates: dict[str, Tensor]
    states: dict[str, Tensor]
    reverse: bool = False


class _Watch(TorchFunctionMode):
    """Records the result of the first nonlinear function of each gate.

    That is the first function whose input depends on this gate and otherwise only on gates recorded before.
    """

    def __init__(self, gates: Sequence[str], *projections: Sequence[Tensor]) -> None:
        super().__init__()
        self.found: dict[str, Tensor] = {}
        self._of = {
            id(tensor): frozenset({name}) for each in projections for name, tensor in zip(gates, each, strict=True)
        }
        self._alive: list[Any] = []  # an id is unique only while its tensor lives

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        of = frozenset().union(*(self._of.get(id(leaf), frozenset()) for leaf in tree_leaves((args, kwargs or {}))))
        if isinstance(result, Tensor) and of:
            self._of[id(result)] = of
            self._alive.append(result)
            new = of - self.found.keys()
            if getattr(func, "__name__", "") in SQUASHING and len(new) == 1:
                self.found[next(iter(new))] = result
        return result


class _Watched:
    """Wraps a cell, and keeps what its gates were at each step."""

    def __init__(self, cell: Any) -> None:
        self.cell, self.gates = cell, cell.gates
        self.names = cell.gate_names or tuple(str(k) for k in range(cell.gates))
        self.every: list[dict[str, Tensor]] = []

    def __call__(self, x: Any, r: Any, *rest: Any) -> Any:
        with _Watch(self.names, x, r) as watch:
            new = self.cell(x, r, *rest)
        sums = zip(self.names, x, r, strict=True)
        self.every.append({name: watch.found.get(name, x_g + r_g) for name, x_g, r_g in sums})
        return new


@torch.no_grad()
def look_inside(layer: Recurrent, name: str, *call: Any, **options: Any) -> list[Inside]:
    """Run a call of `layer`, and return the inside of all directions of all layers, for its first sequence.

    It is computed by the cell's own step. `call` and `options` are the arguments of the call.
    """
    seen: list[Inside] = []

    def run(direction: Direction) -> Sequence[Tensor]:
        cell, x, state, weights, active, reverse = direction
        watched: Any = _Watched(cell)
        states = scan(watched, project_input(weights, x), state, weights, active, reverse)
        every = watched.every[::-1] if reverse else watched.every
        gates = {gate: torch.stack([step[gate][0] for step in every]) for gate in every[0]}
        which = f"{name} layer {len(seen) // layer.num_directions + 1}" if layer.num_layers > 1 else name
        which += (", backward" if reverse else ", forward") if layer.bidirectional else ""
        seen.append(
            Inside(which, name, gates, {s: value[:, 0] for s, value in zip(cell.states, states, strict=True)}, reverse)
        )
        return states

    problem = layer._problem(*_call(*call, **options))
    layer_by_layer(layer._draw_masks(problem, training=False), run)
    return seen


def _call(x: Tensor, state: Any = None, lengths: Any = None, return_all_states: Any = None) -> tuple[Any, ...]:
    return x, state, lengths, return_all_states


@torch.inference_mode()
def watch(task: Any, encoder: Any, given: str) -> tuple[dict[str, list[str]], list[Inside]]:
    """Run `task` on `given`, and look inside every recurrent layer.

    Returns:
        What is read at each step, as `Task.read` returns it, and the inside of the last call of every recurrent layer.

    Raises:
        ValueError: If `given` cannot be encoded.
    """
    found: dict[str, list[Inside]] = {}  # the last call of each layer

    def look(name: str) -> Any:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found[name] = look_inside(module, name, *args, **kwargs)  # type: ignore[arg-type]

        return before

    hooks = [
        module.register_forward_pre_hook(look(name), with_kwargs=True)
        for name, module in task.model.named_modules()
        if isinstance(module, Recurrent)
    ]
    try:
        labels = task.read(encoder, given)
    finally:
        for hook in hooks:
            hook.remove()
    return labels, [inside for layer in found.values() for inside in layer]


def plot_inside(labels: Mapping[str, Sequence[str]], inside: Sequence[Inside], title: str, file: Path) -> None:
    """Plot the gates of each layer and direction, as means over units, above its output, unit by unit, as a PNG.

    Steps without a label, such as padding, are left out. For values with a sign, such as those of a candidate, the root
    of the mean square is shown in place of the mean.
    """
    told = {one.layer: labels.get(one.layer) or labels[""] for one in inside}
    kept = {layer: [t for t, label in enumerate(of) if label][-MOST_COLUMNS:] for layer, of in told.items()}
    width = max(7.0, 1.8 + 0.26 * max(map(len, kept.values())))
    picture = new_figure(width, 1.6 + 3.3 * len(inside))
    picture.suptitle("\n".join(textwrap.wrap(title.replace("$", r"\$"), int(11 * width))), fontsize=11)
    panels = picture.subplots(2 * len(inside), 1, squeeze=False, height_ratios=[1.0, 1.3] * len(inside))[:, 0]
    last = {one.layer: number for number, one in enumerate(inside)}
    for number, (one, above, below) in enumerate(zip(inside, panels[::2], panels[1::2], strict=True)):
        columns = kept[one.layer]
        for k, (name, values) in enumerate(one.gates.items()):
            signed = bool(values.min() < 0)
            drawn = values[columns].float()
            of_all = drawn.square().mean(-1).sqrt() if signed else drawn.mean(-1)
            above.plot(
                of_all.numpy(),
                color=GATES[k % len(GATES)],
                marker="o",
                markersize=3,
                label=f"{name}, rms" if signed else name,
            )
        above.set_title(f"{one.name}: gates, mean over units", loc="left", fontsize=9)
        above.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        plain(above)
        name, state = next(iter(one.states.items()))
        state = state[columns].float()
        end = 0 if one.reverse else -1
        bound = float(state.abs().max()) or 1.0
        painted = below.imshow(
            state[:, state[end].argsort(descending=True)].T.numpy(),
            aspect="auto",
            vmin=-bound,
            vmax=bound,
            cmap="RdBu_r",
            interpolation="nearest",
        )
        below.set_ylabel(f"{name}, {state.shape[-1]} units", fontsize=9)
        below.set_yticks([])
        picture.colorbar(painted, ax=below, fraction=0.02, pad=0.01)
        above.set(xticks=range(len(columns)), xticklabels=[], xlim=(-0.5, len(columns) - 0.5))
        read = [_printable(told[one.layer][t]) for t in columns] if number == last[one.layer] else []
        below.set_xticks(range(len(columns)), read or [""] * len(columns), rotation=90, fontsize=8)
    picture.savefig(file, dpi=150)


def _printable(label: str) -> str:
    return {" ": "␣", "\n": "⏎"}.get(label, label).replace("$", r"\$")
