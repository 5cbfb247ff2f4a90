"""Defines cells that `torch.nn` does not have, to measure what a custom cell gains."""

import seqnets


@seqnets.cell(gates=4, states=("h", "c"), params={"gain": 1.0})
def layernorm_lstm(x, r, state, params):
    """Compute an LSTM step that normalizes the cell state.

    A layer-normalized LSTM (Ba, Kiros and Hinton, arXiv:1607.06450) has other norms too, which are left out here.
    """
    i, f, g, o = (a + b for a, b in zip(x, r, strict=True))
    c = f.sigmoid() * state.c + i.sigmoid() * g.tanh()
    centred = c - c.mean(-1, keepdim=True)
    normed = centred * (centred.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
    return o.sigmoid() * (params.gain * normed).tanh(), c


@seqnets.cell(gates=("f", "c"), states=("h",))
def light(x, r, state):
    """Compute a step of the README's cell."""
    forget = (x.f + r.f).sigmoid()
    return forget * state.h + (1 - forget) * (x.c + r.c).tanh()
