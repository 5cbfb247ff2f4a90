"""Cells of a user, for whom the doctor has news."""

import torch

import seqnets

print("imported")


@seqnets.cell(gates=1, states=("h",))
def trains(x, r, state):
    """Another function where there are no gradients, which kernels know nothing of."""
    return (x[0] + r[0]).tanh() * (1 if torch.is_grad_enabled() else 2)


@seqnets.cell(gates=1, states=("h",))
def fails(x, r, state):
    """It is traced, under a mode of torch's, and fails when it runs."""
    if not torch._C._is_torch_function_mode_enabled() and x[0].shape[1] == 5:
        raise NotImplementedError("not for five units")
    return (x[0] + r[0]).tanh()


@seqnets.cell(gates=1, states=("h",))
def sorts(x, r, state):
    """An operation that kernels do not have."""
    return (x[0] + r[0]).sort(-1).values


@seqnets.cell(gates=1, states=("h",), params=("decay",), masks=("drop",))
def decays(x, r, state, params, masks):
    print("still here")  # of no concern to who reads JSON
    return (x[0] + r[0]).tanh() * masks.drop + params.decay.sigmoid() * state.h
