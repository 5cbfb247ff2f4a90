"""What kernels are compared with: the cell's own steps, from where the kernels were."""

import torch

from seqnets.kernels.triton.trial import _at, _truncate


def test_a_product_in_tf32_reads_ten_bits_of_the_mantissa():
    exact, next_to_it = 1 + 2**-10, 1 + 2**-10 + 2**-11
    assert _truncate(torch.tensor([exact, next_to_it, -next_to_it])).tolist() == [exact, exact, -exact]


def test_a_known_value_has_the_gradient_of_the_value_it_stands_for():
    x = torch.tensor([0.1], requires_grad=True)
    y = _at(torch.tensor([7.0]), 3 * x)
    assert y.item() == 7
    assert torch.autograd.grad(y, x)[0].item() == 3
