"""What `@seqnets.cell` accepts, refuses and keeps."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch

import seqnets
from seqnets.errors import CellError


@seqnets.cell(gates=("f", "c"), states=("h",))
def light(x, r, state):
    """A light gated cell."""
    forget = (x.f + r.f).sigmoid()
    return forget * state.h + (1 - forget) * (x.c + r.c).tanh()


@seqnets.cell(gates=4, states=("h", "c"), params={"p": 0.5}, masks=("drop",))
def peephole(x, r, state, params, masks):
    i, f, g, o = (a + b for a, b in zip(x, r, strict=True))
    c = (f + params.p * state.c).sigmoid() * state.c + i.sigmoid() * g.tanh() * masks.drop
    return o.sigmoid() * c.tanh(), c


def undecorated(x, r, state):
    return (x[0] + r[0]).sin()


wave = seqnets.cell(gates=1, states=("h",))(undecorated)


def test_a_cell_knows_what_its_step_takes():
    assert (peephole.name, peephole.gates, peephole.states) == ("peephole", 4, ("h", "c"))
    assert peephole.params == {"p": 0.5}
    assert peephole.masks == ("drop",)
    assert light.gate_names == ("f", "c")
    assert light.__doc__ == "A light gated cell."


def test_a_step_returns_a_named_tuple_also_for_one_state():
    x, r, h = [torch.zeros(2, 3)] * 2, [torch.zeros(2, 3)] * 2, torch.ones(2, 3)
    assert torch.equal(light(x, r, (h,)).h, torch.full((2, 3), 0.5))


def test_parameters_start_at_their_initial_values_and_default_to_zero():
    assert seqnets.cell(gates=1, states=("h",), params=("a", "b"))(lambda x, r, s, p: x[0] + p.a + p.b).params == {
        "a": 0,
        "b": 0,
    }
    layer = seqnets.Recurrent(peephole, 3, 5, bidirectional=True, masks={"drop": seqnets.Mask(0.1)})
    assert torch.equal(layer.p_l0_reverse, torch.full((5,), 0.5))
    assert "p_l0" in layer.state_dict()


@pytest.mark.parametrize("found", [light, peephole, wave, seqnets.CELLS["lstm"]], ids=lambda c: c.name)
def test_cells_pickle_by_name_and_copy_as_themselves(found):
    assert pickle.loads(pickle.dumps(found)).step is found.step
    assert copy.deepcopy(found) is found
    state = found.State(*(torch.ones(1) for _ in found.states))
    assert pickle.loads(pickle.dumps(state)) == state
    assert copy.deepcopy(state)._fields == found.states


def test_a_cell_pickles_into_another_process(tmp_path):
    (tmp_path / "l.pt").write_bytes(pickle.dumps(seqnets.GRU(2, 3)))
    code = f"import pickle; print(pickle.load(open({str(tmp_path / 'l.pt')!r}, 'rb')).cell)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "<cell gru: 3 gates, states h>" in out


def test_a_local_cell_says_why_it_cannot_be_pickled():
    @seqnets.cell(gates=1, states=("h",))
    def local(x, r, state):
        return x[0] + r[0]

    with pytest.raises(CellError, match="module level"):
        pickle.dumps(local)


@pytest.mark.parametrize(
    ("options", "step", "message"),
    [
        ({"gates": 0, "states": ("h",)}, lambda x, r, s: s[0], "at least one gate"),
        ({"gates": "ifgo", "states": ("h",)}, lambda x, r, s: s[0], "tuple of names"),
        ({"gates": 1, "states": "h"}, lambda x, r, s: s[0], "is the string"),
        ({"gates": 1, "states": ("h", "h")}, lambda x, r, s: s, "'h' is taken"),
        ({"gates": 1, "states": ("h",), "params": ("weight_ih",)}, lambda x, r, s, p: s[0], "'weight_ih' is taken"),
        ({"gates": 1, "states": ("class",)}, lambda x, r, s: s[0], "cannot be a name"),
        ({"gates": 1, "states": ("count",)}, lambda x, r, s: s[0], "cannot be a name"),
        ({"gates": ("i", "i"), "states": ("h",)}, lambda x, r, s: s[0], "'i' is taken"),
        ({"gates": 1, "states": ("h",), "params": {"a": "one"}}, lambda x, r, s, p: s[0], "must be a number"),
        ({"gates": 1, "states": ("h", "c")}, lambda x, r, s: x[0], "must return h, c, but returned 1 values"),
        ({"gates": 1, "states": ("h",)}, lambda x, r, s: (x[0], r[0]), "but returned 2 values"),
        ({"gates": 1, "states": ("h",)}, lambda x, r, s: None, "but returned NoneType"),
        ({"gates": ("a", "b"), "states": ("h",)}, lambda x, r, s: x.c, "with gates a, b of shape"),
        ({"gates": 1, "states": ("h",), "params": ("p",)}, lambda x, r, s: s[0], r"step\(x, r, state, params\)"),
        ({"gates": 1, "states": ("h",)}, lambda x, r, s: x[0].mean(-1), "gates' shape"),
        ({"gates": 1, "states": ("h",)}, lambda x, r, s: x[1], "raised IndexError"),
        ({"gates": 1, "states": ("h",)}, lambda x, r, s: (3.0,), "came back as float"),
    ],
)
def test_a_wrong_definition_is_refused_where_it_is_written(options, step, message):
    with pytest.raises(CellError, match=message):
        seqnets.cell(**options)(step)


def test_decorating_without_arguments_or_something_else_is_refused():
    with pytest.raises(CellError, match="needs its arguments"):
        seqnets.cell(undecorated)
    with pytest.raises(CellError, match="decorates a step function"):
        seqnets.cell(gates=1, states=("h",))("step")


def test_a_saved_state_loads_with_weights_only(tmp_path):
    state = seqnets.LSTM(2, 3)(torch.randn(4, 1, 2))[1]
    torch.save(state, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    assert loaded._fields == ("h", "c")
    assert torch.equal(loaded.c, state.c)


def test_unknown_cells_are_refused_with_the_choices():
    with pytest.raises(CellError, match="did you mean 'lstm'.*rnn_tanh, rnn_relu, lstm, gru"):
        seqnets.get_cell("lsmt")
    with pytest.raises(CellError, match="cannot be imported"):
        seqnets.get_cell("nowhere:cell")
    with pytest.raises(CellError, match="not a cell"):
        seqnets.get_cell("torch:tanh")
    with pytest.raises(CellError, match="not int"):
        seqnets.Recurrent(3, 4, 5)


def test_built_in_docstrings_are_the_textbook():
    text = seqnets.CELLS["lstm"].__doc__
    order = [
        text.index(word)
        for word in ("forget gate:", "input gate:", "candidate:", "cell state:", "output gate:", "hidden state")
    ]
    assert order == sorted(order)
    assert all("Shapes:" in c.__doc__ for c in seqnets.CELLS.values())
