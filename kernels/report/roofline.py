"""A model, not a measurement: the least time that a step of a kernel can take, from counts and data sheets."""

from __future__ import annotations

from typing import NamedTuple


class GPU(NamedTuple):
    """Facts of the data sheets and the CUDA C++ Programming Guide; per SM (AMD: compute unit) and clock where said so."""

    name: str
    arch: str
    clock: float  # GHz, boost; of H100, B200 and MI300X what their dense tensor rates are stated for
    fp16: int  # dense multiply-adds per SM and clock with float32 accumulation, bf16 the same
    tf32: int
    fp32: int
    fp64: int


GPUS = (  # the first of an architecture stands for it
    GPU("A100", "sm_80", 1.410, 1024, 512, 64, 64),
    GPU("A10", "sm_86", 1.695, 512, 256, 128, 2),
    GPU("RTX 3090", "sm_86", 1.695, 256, 128, 128, 2),
    GPU("L4", "sm_89", 2.040, 512, 256, 128, 2),
    GPU("RTX 4090", "sm_89", 2.520, 256, 128, 128, 2),
    GPU("H100 SXM", "sm_90", 1.830, 2048, 1024, 128, 128),
    GPU("B200", "sm_100", 1.860, 4096, 2048, 128, 64),
    GPU("MI300X", "gfx942", 2.100, 1024, 512, 128, 128),
)

# Shared memory of an SM, or LDS of a compute unit: 32 banks of 4 bytes.
SHARED_BYTES_PER_CLOCK = 128
# Assumed, as no vendor states it: about one round trip to shared memory, for warps that arrive together.
BARRIER_CYCLES = 20
# Assumed, as no vendor states it: from the end of a kernel to the start of the next in a replayed graph.
LAUNCH_NS = 1000.0


class Floors(NamedTuple):
    """A model of the least nanoseconds per time step, never a measurement."""

    shared_memory: float  # reading the weight once
    tensor_cores: float  # the products, where the dtype has no tensor cores on the multipliers
    barriers: float
    launch: float

    @property
    def step(self) -> float:
        """All together: reading and multiplying overlap, barriers and launches wait for both."""
        return max(self.shared_memory, self.tensor_cores) + self.barriers + self.launch


def gpu(name: str) -> GPU:
    """The GPU of that name, or the one that stands for the architecture.

    Raises:
        ValueError: neither is known.
    """
    for known in GPUS:
        if name in (known.name, known.arch):
            return known
    raise ValueError(f"no data sheet of {name!r} here; known are {', '.join(f'{g.name} ({g.arch})' for g in GPUS)}")


def floors(gpu: GPU, *, weight_bytes: int, barriers: int, products: int, rate: str, launches: int = 0) -> Floors:
    """The model for one block (program) that has its SM to itself.

    Args:
        weight_bytes: the recurrent weight that the block reads from shared memory in a time step.
        barriers: of the block per time step, as counted by `disassembly.per_step`.
        products: multiply-adds of the block per time step, rows · columns · depth of its dots.
        rate: ``"fp16"`` (bf16 too), ``"tf32"``, ``"fp32"`` or ``"fp64"``.
        launches: per time step; 0 where the time loop is in the kernel.
    """
    return Floors(
        shared_memory=weight_bytes / SHARED_BYTES_PER_CLOCK / gpu.clock,
        tensor_cores=products / getattr(gpu, rate) / gpu.clock,
        barriers=barriers * BARRIER_CYCLES / gpu.clock,
        launch=launches * LAUNCH_NS,
    )
