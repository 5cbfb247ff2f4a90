"""Defines the gated recurrent unit (GRU) cell."""

from seqnets.cells.cell import cell


@cell(gates=("r", "z", "n"), states=("h",))
def gru(x, r, state):
    """Run one step of a gated recurrent unit (GRU) in its reset-after form, which PyTorch and cuDNN compute.

    ::

        r_t = σ(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)           reset gate: how much of the past the candidate sees
        z_t = σ(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)           update gate: how much of the past to keep
        n_t = tanh(W_in x_t + b_in + r_t · (W_hn h_{t-1} + b_hn))    candidate
        h_t = (1 - z_t) · n_t + z_t · h_{t-1}                    hidden state, the output

    The original paper (Cho et al., arXiv:1406.1078) resets before the product, ``W_hn (r_t · h_{t-1})``. Reset-after
    needs only one recurrent product for all gates.

    Shapes: ``x_t (B, I)``; ``h_t (B, H)``; ``W_ih (3·H, I)``, ``W_hh (3·H, H)`` and biases ``(3·H,)`` stack the gates
    in the order ``r z n``, as `torch.nn.GRU` does.
    """
    reset = (x.r + r.r).sigmoid()
    z = (x.z + r.z).sigmoid()
    n = (x.n + reset * r.n).tanh()
    return n + z * (state.h - n)
