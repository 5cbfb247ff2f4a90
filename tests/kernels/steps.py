"""What researchers write in a step, each as a function of a tile ``(B, H)``, and cells that need more than one."""

import math

import torch
import torch.nn.functional as F

import seqnets


def in_place(x):
    y = x * 2
    y.add_(1).mul_(x)
    y -= 0.25
    return y.sigmoid_()


def without_gradient(x):
    with torch.no_grad():
        scale = x.sigmoid()
    return scale * x


class Spike(torch.autograd.Function):
    """A step function with a surrogate gradient (Neftci, Mostafa and Zenke, arXiv:1901.09948)."""

    @staticmethod
    def forward(x):
        return (x > 0).to(x.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, d):
        (x,) = ctx.saved_tensors
        return d / (1 + x.abs()) ** 2


ARITHMETIC = {
    "arithmetic": lambda x: 1 - (x + 2) * -x / 3,
    "scalar on the left": lambda x: 2 / (3 + x * x) - 1,
    "alpha": lambda x: torch.add(x, x * x, alpha=0.3),
    "rsub": lambda x: torch.rsub(x, 2.5, alpha=3),
    "reciprocal": lambda x: (x * x + 0.1).reciprocal(),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.3),
    "addcdiv": lambda x: torch.addcdiv(x, x, x.abs() + 3, value=0.3),
    "lerp": lambda x: x.lerp(x * x, 0.3),
    "lerp by a tensor": lambda x: x.lerp(x * x, x.sigmoid()),
    "a product with itself": lambda x: x * x * x.square(),
    **{f"power {p}": lambda x, p=p: x**p for p in (0, 1, 2, 3, 5, 16)},
    **{f"power {p}": lambda x, p=p: (x.abs() + 0.1) ** p for p in (-3, -2, -1, -0.5, 0.5, 1.5, -1.5, 0.3, 2.7, -0.7)},
    **{f"large power {p}": lambda x, p=p: (x / (1 + x.abs())) ** p for p in (17, 20)},
    "power of 2": lambda x: 2 ** (x / 4),
    "power of 0.9": lambda x: 0.9 ** (x / 4),
    "power of tensors": lambda x: (x.tanh() + 1.5) ** (3 * x.tanh()),
    "power of a negative number": lambda x: (-1.5) ** (4 * x.tanh()).round(),
    "power of negative tensors": lambda x: (-0.5 - x.tanh().abs()) ** (4 * x.tanh().detach()).round(),
    "tensor constant": lambda x: x * torch.tensor(0.3) + torch.tensor([0.1]),
    "new tensor": lambda x: x * x.new_tensor(0.3),
    "new full": lambda x: x * x.new_full((1,), 0.3) + x.new_zeros(x.shape) + x.new_ones(()),
    "full like": lambda x: torch.full_like(x, 0.3) * x + torch.zeros_like(x) + torch.ones_like(x),
    "ones of the width": lambda x: x + torch.ones(x.shape[-1], dtype=x.dtype),
    "rows of a constant": lambda x: (
        x * torch.full((), 0.5, dtype=x.dtype).softmax(-1) + x.new_ones(x.shape).sum(-1)[:, None]
    ),
    "width": lambda x: x / x.shape[-1] + x * x.size(1) ** -0.5,
    "in place": in_place,
    "into zeros": lambda x: torch.zeros_like(x).add_(x),
    "without gradient": without_gradient,
    "detach": lambda x: x * x.detach(),
    "straight through": lambda x: x + (x.sign() - x).detach(),
    "own gradient": Spike.apply,
    "not of x": lambda x: torch.ones_like(x),
    "x itself": lambda x: x,
}

FUNCTIONS = {
    **{
        f: getattr(torch, f)
        for f in ("neg", "abs", "sign", "exp", "exp2", "expm1", "erf", "sin", "cos", "square")
    },
    **{f: lambda x, f=f: getattr(torch, f)(x.abs() + 0.01) for f in ("log", "log2", "log10", "sqrt", "rsqrt")},
    **{f: lambda x, f=f: getattr(torch, f)(x * 3) for f in ("floor", "ceil", "trunc", "round", "frac")},
    "log1p": lambda x: torch.log1p(x.abs()),
    "logit": lambda x: x.sigmoid().logit(1e-3),
    "xlogy": lambda x: torch.xlogy(x, x.abs() + 0.1),
    "logaddexp": lambda x: torch.logaddexp(x, 1 - x),
    "sinc": torch.sinc,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    **{
        f: getattr(F, f)
        for f in (
            "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign",
            "logsigmoid", "hardtanh", "hardswish", "tanhshrink", "softshrink", "hardshrink",
        )
    },
    "hard sigmoid": lambda x: F.relu6(x + 3) / 6,  # F.hardsigmoid's own gradient multiplies by a float32 sixth
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "leaky relu 0.3": lambda x: F.leaky_relu(x, 0.3),
    "elu 0.3": lambda x: F.elu(x, 0.3),
    "softplus beta": lambda x: F.softplus(x, beta=3, threshold=10),
    "threshold": lambda x: F.threshold(x, 0.1, 0.2),
    "squared relu": lambda x: x.relu() ** 2,
    "prelu": lambda x: F.prelu(x, x.new_full((1,), 0.1)),
}  # fmt: skip

CHOICES = {
    "maximum": lambda x: torch.maximum(x, x * x),
    "minimum": lambda x: torch.minimum(x, x * x),
    "max of two": lambda x: torch.max(x, -x),
    "clamp": lambda x: x.clamp(-0.3, 0.7),
    "clamp above": lambda x: x.clamp(max=0.7),
    "clamp below": lambda x: x.clamp_min(-0.3),
    "clamp by tensors": lambda x: x.clamp(-x * x, x * x),
    "where": lambda x: torch.where(x > 0, x, x * x),
    "where with a scalar": lambda x: torch.where(x.abs() < 1, x, 0.3),
    "where of scalars": lambda x: torch.where(x > 0, 0.1, 0.2) * x,
    "where of truths": lambda x: torch.where(torch.where(x > 0, x < 1, x < -1), x, 2 * x),
    "where or true": lambda x: torch.where(torch.where(x > 0, True, x < -1), x, 2 * x),
    "masked fill": lambda x: x.masked_fill(x > 0.5, 0.3),
    "comparisons": lambda x: ((x < 1) & (x >= -1) | (x > 1.2) | (x <= -1.2)).to(x.dtype) * x,
    "equality": lambda x: torch.where(x == 0, 3 * x + 1, torch.where(x != 1, x, 0.0)),
    "logical operators": lambda x: x * torch.logical_and(x > -1, torch.logical_not(x > 1)) + torch.logical_or(x, x > 0),
    "not and xor": lambda x: x * (~(x > 0)) + ((x > 0) ^ (x > 1)).to(x.dtype),
    "sum of truths": lambda x: ((x > 0) + (x > 1)) * x,
    "product of truths": lambda x: (x > 0) * (x < 1) * x,
    "truth as a float": lambda x: (x > 0).float() * x + 0.3 * (x > 1).to(x.dtype),
    "finite or not": lambda x: torch.where((1 / x).isfinite(), x, 2 * x) + x.isinf(),
    "truth as a whole number": lambda x: ((x > 0).long() + (x > 1).int() * 2) * x,
    "truth of a float": lambda x: x.bool().to(x.dtype) + x,
    "only a truth": lambda x: (x > 0).to(x.dtype),
    "ones of truth": lambda x: (torch.ones_like(x, dtype=torch.bool) & (x > 0)) * x,
    "without nans": lambda x: torch.where((x / (x.abs() > 1)).isnan(), x, 2 * x),
}

ROWS = {
    "mean": lambda x: x - x.mean(-1, keepdim=True),
    "mean, dim by name": lambda x: x * x.mean(dim=1).unsqueeze(1),
    "mean, indexed by None": lambda x: x * x.mean(-1)[:, None],
    "sum": lambda x: x * x.sum(-1, keepdim=True),
    "sum of truths over the row": lambda x: x * (x > 0).sum(-1, keepdim=True),
    "any and all": lambda x: x * (x > 1).any(-1, keepdim=True) + (x > -3).all(-1, keepdim=True),
    "amax": lambda x: x - x.amax(-1, keepdim=True),
    "amin": lambda x: x * x.amin(-1, keepdim=True),
    "amax and amin": lambda x: x / (1 + x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True)),
    "var": lambda x: x * x.var(-1, unbiased=False, keepdim=True),
    "var and mean": lambda x: (x - torch.var_mean(x, -1, correction=0, keepdim=True)[1]) * 2,
    "std": lambda x: x * (x + x * x).std(-1, correction=0, keepdim=True),
    "softmax": lambda x: x.softmax(-1),
    "softmin": lambda x: F.softmin(x, -1) * x,
    "log softmax": lambda x: x.log_softmax(-1),
    "logsumexp": lambda x: x - x.logsumexp(-1, keepdim=True),
    "layer norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "rms norm": lambda x: F.rms_norm(x, x.shape[-1:], eps=1e-5),
    "l2 norm": lambda x: x / (1 + x.norm(dim=-1, keepdim=True)),
    "l1 norm": lambda x: x / (1 + x.norm(p=1, dim=-1, keepdim=True)),
    "l3 norm": lambda x: x / (1 + torch.linalg.vector_norm(x, 3, dim=-1, keepdim=True)),
    "maximum norm": lambda x: x / (1 + x.norm(p=math.inf, dim=-1, keepdim=True)),
    "normalize": lambda x: F.normalize(x + 0.1, dim=-1),
    "inner product": lambda x: x * torch.linalg.vecdot(x, x * x).unsqueeze(-1),
    "an outer dimension and back": lambda x: x.unsqueeze(0).softmax(-1).squeeze(0),
    "sum of a broadcast": lambda x: x + x.mean(-1, keepdim=True).expand_as(x).sum(-1, keepdim=True),
}

TILES = ARITHMETIC | FUNCTIONS | CHOICES | ROWS


def cell_of(function):
    """A cell whose step is the function, of its one input."""
    return seqnets.cell(gates=1, states=("h",))(lambda x, r, state: function(x[0]))


@seqnets.cell(gates=1, states=("h",), params=("log_a", "b", "unused"))
def decays(x, r, state, params):
    """Functions of parameters: a decay of its own, a row of one, a mean of one."""
    a = (-params.log_a.exp()).exp()
    return a * state.h + (1 - a * a).sqrt() * x[0] * params.b.unsqueeze(0) + r[0] * params.b.mean()


@seqnets.cell(gates=1, states=("h",), params=("a", "b"))
def attends(x, r, state, params):
    """A softmax over parameters, and a row of the batch that meets it."""
    weights = params.a.softmax(-1)
    return x[0] * weights * (weights * state.h).sum(-1, keepdim=True) + params.b * params.a.amax() + r[0]


@seqnets.cell(gates=1, states=("h",), params=("a", "b", "c"))
def reparametrized(x, r, state, params):
    """Parameters that are bounded, normalized and gated before they meet the batch."""
    a = F.softplus(params.a) / (1 + params.b.norm())
    b = torch.where(params.b > 0.5, params.b.tanh(), params.c.clamp(0.1, 0.6)) - params.c.mean()
    c = (params.a * params.c).log_softmax(0) ** 2
    return state.h * torch.maximum(a, b) + x[0] * c.sigmoid() * F.gelu(params.c) + r[0] * params.b.std(correction=0)


@seqnets.cell(gates=1, states=("h",), params=("gamma", "beta"))
def norms(x, r, state, params):
    """Layer norm by torch's own functions, with parameters."""
    inner = F.layer_norm(x[0], x[0].shape[-1:], params.gamma, params.beta, 1e-3)
    return F.rms_norm(inner + x[0] + r[0], (r[0].shape[-1],), params.gamma, 1e-3)


@seqnets.cell(gates=("sum", "t1"), states=("h", "cols"), params=("hidden",), masks=("tl",))
def unlucky_names(x, r, state, params, masks):
    """Names that generated source has other uses for, and some that no source has."""
    step = x.sum + r.t1
    tanh = step.tanh() * masks.tl
    σ = (tanh + params.hidden).sigmoid()
    one = σ * state.cols * torch.where(step > 0, 0.5, 2.0)
    return one + tanh, σ


@seqnets.cell(gates=1, states=("h", "k", "h2"), masks=("keep",))
def keeps(x, r, state, masks):
    """States that pass unchanged, are exchanged, or are the same."""
    new = x[0] * masks.keep.float() + r[0]
    return new, state.h2, new


CELLS = {cell.name: cell for cell in (decays, attends, reparametrized, norms, unlucky_names, keeps)}
