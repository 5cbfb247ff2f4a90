"""Defines the long short-term memory (LSTM) cell."""

from seqnets.cells.cell import cell


@cell(gates=("i", "f", "g", "o"), states=("h", "c"))
def lstm(x, r, state):
    """Run one step of a long short-term memory (LSTM).

    This is the LSTM of Hochreiter and Schmidhuber (Neural Computation 9(8), 1997) with the forget gate of Gers,
    Schmidhuber and Cummins (Neural Computation 12(10), 2000) and without peepholes.

    One time step computes, in this order::

        1.  [h_{t-1}, x_t]                                       the previous output and the new input
        2.  f_t = σ(W_if x_t + b_if + W_hf h_{t-1} + b_hf)       forget gate: how much of the cell state to keep
        3.  i_t = σ(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)       input gate: how much of the candidate to write
        4.  g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)    candidate: what could be written
        5.  c_t = f_t · c_{t-1} + i_t · g_t                      cell state: forget, then write
        6.  o_t = σ(W_io x_t + b_io + W_ho h_{t-1} + b_ho)       output gate: how much of the cell state to expose
        7.  h_t = o_t · tanh(c_t)                                hidden state, the output

    Shapes: ``x_t (B, I)``; ``h_t, c_t (B, H)``; ``W_ih (4·H, I)``, ``W_hh (4·H, H)`` and biases ``(4·H,)`` stack the
    gates in the order ``i f g o``, as `torch.nn.LSTM` does. With ``proj_size`` P, ``h_t = W_hr (o_t · tanh(c_t))`` is
    ``(B, P)`` and ``W_hh`` is ``(4·H, P)`` (Sak, Senior and Beaufays, arXiv:1402.1128).
    """
    f = (x.f + r.f).sigmoid()
    i = (x.i + r.i).sigmoid()
    g = (x.g + r.g).tanh()
    c = f * state.c + i * g
    o = (x.o + r.o).sigmoid()
    return o * c.tanh(), c
