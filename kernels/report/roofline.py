"""Models the least time that a step of a kernel can take, from counts and data sheets; it measures nothing."""

from __future__ import annotations

from typing import NamedTuple


class GPU(NamedTuple):
    """Holds facts from data sheets and the CUDA C++ Programming Guide.

    Rates are multiply-adds per SM (AMD: compute unit) and clock.
    """

    name: str
    arch: str
    clock: float  # boost clock in GHz; for H100, B200 and MI300X the clock of their stated tensor rates
    fp16: int  # dense, with float32 accumulation; the same for bf16
    tf32: int
    fp32: int
    fp64: int


GPUS = (  # the first GPU of an architecture represents it
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
# An assumption, because no vendor states it: about one round trip to shared memory, for warps that arrive together.
BARRIER_CYCLES = 20
# An assumption, because no vendor states it: from the end of a kernel to the start of the next in a replayed graph.
LAUNCH_NS = 1000.0


class Floors(NamedTuple):
    """Holds the least nanoseconds per time step according to the roofline model, never a measurement."""

    shared_memory: float  # reading the weight once
    tensor_cores: float  # the products; on the ordinary multipliers for dtypes without tensor cores
    barriers: float
    launch: float

    @property
    def step(self) -> float:
        """Return the least time of a whole step: reads and products overlap, barriers and launches wait for both."""
        return max(self.shared_memory, self.tensor_cores) + self.barriers + self.launch


def gpu(name: str) -> GPU:
    """Return the GPU of that name, or the one that represents the architecture of that name.

    Raises:
        ValueError: Neither is known.
    """
    for known in GPUS:
        if name in (known.name, known.arch):
            return known
    raise ValueError(f"no data sheet of {name!r} here; known are {', '.join(f'{g.name} ({g.arch})' for g in GPUS)}")


def floors(gpu: GPU, *, weight_bytes: int, barriers: int, products: int, rate: str, launches: int = 0) -> Floors:
    """Return the roofline model of one block (program) that has its SM to itself, in nanoseconds per time step.

    Args:
        gpu: The GPU.
        weight_bytes: Bytes of the recurrent weight that the block reads from shared memory in a time step.
        barriers: Barriers of the block per time step, as counted by `disassembly.per_step`.
        products: Multiply-adds of the block per time step: rows · columns · depth of its dots.
        rate: ``"fp16"`` (also for bf16), ``"tf32"``, ``"fp32"`` or ``"fp64"``.
        launches: Launches per time step; 0 if the time loop is in the kernel.
    """
    return Floors(
        shared_memory=weight_bytes / SHARED_BYTES_PER_CLOCK / gpu.clock,
        tensor_cores=products / getattr(gpu, rate) / gpu.clock,
        barriers=barriers * BARRIER_CYCLES / gpu.clock,
        launch=launches * LAUNCH_NS,
    )
