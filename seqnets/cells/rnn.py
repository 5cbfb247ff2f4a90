"""Defines the cells of Elman's simple recurrent network."""

from seqnets.cells.cell import cell


@cell(gates=1, states=("h",))
def rnn_tanh(x, r, state):
    """Run one step of the simple recurrent cell with tanh.

    Source: Elman, "Finding structure in time", Cognitive Science 14, 1990::

        h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)        hidden state, the output

    Shapes: ``x_t (B, I)``; ``h_t (B, H)``; ``W_ih (H, I)``; ``W_hh (H, H)``; biases ``(H,)``.
    """
    return (x[0] + r[0]).tanh()


@cell(gates=1, states=("h",))
def rnn_relu(x, r, state):
    """Run one step of the simple recurrent cell with ReLU.

    Source: Le, Jaitly and Hinton, arXiv:1504.00941, who initialize ``W_hh`` with the identity::

        h_t = max(0, W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)      hidden state, the output

    Shapes: ``x_t (B, I)``; ``h_t (B, H)``; ``W_ih (H, I)``; ``W_hh (H, H)``; biases ``(H,)``.
    """
    return (x[0] + r[0]).relu()
