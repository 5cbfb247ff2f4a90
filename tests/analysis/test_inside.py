"""What is seen of gates and states as a model reads."""

import pytest
import torch
from matplotlib.image import imread

import seqnets
from seqnets.analysis.inside import look_inside, plot_inside
from seqnets.models import ConvFront


def gates_by_hand(layer, x, state):
    return (x @ layer.weight_ih_l0.T + layer.bias_ih_l0 + state @ layer.weight_hh_l0.T + layer.bias_hh_l0).chunk(
        layer.cell.gates, -1
    )


def test_an_lstms_gates_are_what_its_equations_say():
    layer, x = seqnets.LSTM(3, 4), torch.randn(6, 2, 3)
    (inside,) = look_inside(layer, "it", x)
    y, _ = layer(x)
    previous = torch.cat([torch.zeros(1, 2, 4), y[:-1]])
    i, f, g, o = gates_by_hand(layer, x, previous)
    for name, expected in {"i": i.sigmoid(), "f": f.sigmoid(), "g": g.tanh(), "o": o.sigmoid()}.items():
        torch.testing.assert_close(inside.gates[name], expected[:, 0])  # of the first sequence
    torch.testing.assert_close(inside.states["h"], y[:, 0])
    assert inside.states.keys() == {"h", "c"}


def test_a_gate_inside_a_gate_is_told_apart():
    """A GRU's candidate hangs on its reset gate too."""
    layer, x = seqnets.GRU(3, 4), torch.randn(6, 2, 3)
    (inside,) = look_inside(layer, "it", x)
    y, _ = layer(x)
    h, n, z = torch.cat([torch.zeros(1, 4), y[:-1, 0]]), inside.gates["n"], inside.gates["z"]
    torch.testing.assert_close(y[:, 0], n + z * (h - n))
    assert ((inside.gates["r"] > 0) & (inside.gates["r"] < 1)).all()
    assert n.abs().max() < 1 and n.min() < 0


@seqnets.cell(gates=2, states=("h",))
def nameless(x, r, state):
    return (x[0] + r[0]).sigmoid() * state.h + x[1] + r[1]


def test_any_cell_can_be_looked_into():
    layer, x = seqnets.Recurrent(nameless, 3, 4), torch.randn(5, 2, 3)
    (inside,) = look_inside(layer, "it", x)
    y, _ = layer(x)
    h = torch.cat([torch.zeros(1, 4), y[:-1, 0]])
    assert ((inside.gates["0"] > 0) & (inside.gates["0"] < 1)).all()
    torch.testing.assert_close(
        inside.gates["0"] * h + inside.gates["1"], y[:, 0]
    )  # the second has no nonlinearity: as it is


def test_every_layer_and_direction_is_seen():
    layer, x = seqnets.LSTM(3, 4, num_layers=2, bidirectional=True), torch.randn(6, 2, 3)
    inside = look_inside(layer, "it", x)
    assert [one.name for one in inside] == [f"it layer {k}, {way}" for k in (1, 2) for way in ("forward", "backward")]
    assert [one.reverse for one in inside] == [False, True, False, True]
    y, (h, _) = layer(x)
    torch.testing.assert_close(torch.cat([inside[2].states["h"], inside[3].states["h"]], -1), y[:, 0])
    torch.testing.assert_close(inside[1].states["h"][0], h[1, 0])


def test_windows_of_a_front_are_what_it_sees():
    front, x = ConvFront(2, 3, kernel_size=3, pool_size=2), torch.randn(9, 1, 2)
    assert front.windows(9) == [(0, 4), (2, 6), (4, 8)]
    for k, (start, stop) in enumerate(front.windows(9)):
        changed = x.clone()
        changed[:start], changed[stop:] = 9.0, 9.0
        torch.testing.assert_close(front(changed)[k], front(x)[k])


@pytest.mark.parametrize("length", [3, 300])
def test_the_picture_leaves_padding_out(length, tmp_path):
    (inside,) = look_inside(seqnets.GRU(3, 4), "it", torch.randn(length, 1, 3))
    labels = ["", *["$ word"] * (length - 1)]
    plot_inside({"": labels}, [inside], "a title with $ in it " * 20, tmp_path / "a.png")
    assert imread(tmp_path / "a.png").std() > 0.01
