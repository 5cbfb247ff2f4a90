"""Cells that the library does not have, as users would write them: parameters, masks, reductions, more states."""

import torch

import seqnets


@seqnets.cell(gates=("i", "f", "g", "o"), states=("h", "c"), params=("p_i", "p_f", "p_o"))
def peephole_lstm(x, r, state, params):
    """Gers, Schraudolph and Schmidhuber, JMLR 3, 2002."""
    i = (x.i + r.i + params.p_i * state.c).sigmoid()
    f = (x.f + r.f + params.p_f * state.c).sigmoid()
    c = f * state.c + i * (x.g + r.g).tanh()
    o = (x.o + r.o + params.p_o * c).sigmoid()
    return o * c.tanh(), c


@seqnets.cell(gates=4, states=("h", "c"), params={"gamma": 1.0, "beta": 0.0}, masks=("drop",))
def layernorm_lstm(x, r, state, params, masks):
    """Ba, Kiros and Hinton, arXiv:1607.06450 (on the cell state), with recurrent dropout, arXiv:1603.05118."""
    i, f, g, o = (a + b for a, b in zip(x, r, strict=True))
    c = f.sigmoid() * state.c + i.sigmoid() * g.tanh() * masks.drop
    centred = c - c.mean(-1, keepdim=True)
    scaled = centred * (centred.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * params.gamma + params.beta
    return o.sigmoid() * scaled.tanh(), c


@seqnets.cell(gates=3, states=("h",), masks=("keep",))
def zoneout_gru(x, r, state, masks):
    """Krueger et al., arXiv:1606.01305: where the mask is 0 a unit keeps its state."""
    reset, z = (x[0] + r[0]).sigmoid(), (x[1] + r[1]).sigmoid()
    n = (x[2] + reset * r[2]).tanh()
    new = n + z * (state.h - n)
    return state.h + masks.keep * (new - state.h)


@seqnets.cell(gates=2, states=("h", "fast", "slow"), params={"rate": 0.1})
def two_speeds(x, r, state, params):
    """Three states and a rate."""
    fast = (x[0] + r[0]).tanh()
    slow = state.slow + params.rate * (fast - state.slow)
    return torch.where(x[1] > 0, fast, slow) * (r[1].sigmoid()), fast, slow


CELLS = {c.name: c for c in (peephole_lstm, layernorm_lstm, zoneout_gru, two_speeds)}
MASKS = {
    "layernorm_lstm": {"drop": seqnets.Mask(0.3, per="step")},
    "zoneout_gru": {"keep": seqnets.Mask(0.2, per="sequence", scale=False)},
}
ALL = {**seqnets.CELLS, **CELLS}


def layer(name, input_size, hidden_size, **options):
    """A layer over a cell of `ALL`, with fixed masks for the cells that have any."""
    return seqnets.Recurrent(ALL[name], input_size, hidden_size, masks=MASKS.get(name), **options)
