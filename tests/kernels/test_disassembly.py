"""Counts from the disassembly of small kernels whose counts are known,
compiled ahead of time for GPUs that are not here.
"""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("triton", reason="the kernels need Triton")

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from seqnets.kernels.report.disassembly import per_step, resources
from seqnets.kernels.report.flow import Unclear, regions
from seqnets.kernels.report.roofline import GPUS, LAUNCH_NS, floors, gpu
from seqnets.kernels.report.work import tensor_work

pytestmark = pytest.mark.skipif(
    triton.knobs.runtime.interpret, reason="under TRITON_INTERPRET=1 nothing can be compiled ahead of time"
)

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
each_target = pytest.mark.parametrize("arch", ["sm_80", "sm_90", "gfx942"])


@triton.jit
def resident(x, w, y, T, M: tl.constexpr, H: tl.constexpr, DOTS: tl.constexpr, BARRIERS: tl.constexpr,
             CARRY: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    rows = tl.arange(0, M)[:, None]
    units = tl.arange(0, H)
    weight = tl.load(w + units[:, None] * H + units[None, :])
    h = tl.zeros((M, H), CARRY)
    for t in range(T):
        at = (t * M + rows) * H + units[None, :]
        acc = tl.load(x + at).to(CARRY)
        for _ in tl.static_range(DOTS):
            acc = tl.dot(h.to(weight.dtype), weight, acc, input_precision=PRECISION, out_dtype=CARRY)
        for _ in tl.static_range(BARRIERS):
            tl.debug_barrier()
            acc = acc * 1.5  # Triton 3.6 merges barriers with nothing between them
        h = 1 / (1 + tl.exp(acc))
        tl.store(y + at, h.to(weight.dtype))


@triton.jit
def tiled(x, w, h_ptr, y, H, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    rows = tl.arange(0, M)[:, None]
    units = tl.program_id(0) * N + tl.arange(0, N)[None, :]
    depth = tl.arange(0, K)
    acc = tl.load(x + rows * H + units).to(tl.float32)
    for k in range(0, H, K):
        h = tl.load(h_ptr + rows * H + k + depth[None, :])
        acc = tl.dot(h, tl.load(w + units * H + k + depth[:, None]), acc)
    tl.store(y + rows * H + units, acc.to(y.dtype.element_ty))


@triton.jit
def nested(x, w, y, T, H: tl.constexpr, K: tl.constexpr):
    rows = tl.arange(0, 16)[:, None]
    units = tl.arange(0, H)[None, :]
    depth = tl.arange(0, K)
    for t in range(T):
        tl.debug_barrier()
        acc = tl.load(x + (t * 16 + rows) * H + units).to(tl.float32)
        for k in range(0, H, K):
            h = tl.load(y + (t * 16 + rows) * H + k + depth[None, :])
            acc = tl.dot(h, tl.load(w + (k + depth[:, None]) * H + units), acc)
        tl.store(y + (t * 16 + 16 + rows) * H + units, acc.to(y.dtype.element_ty))


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compiled(function, arch, dtype, sizes, options, **constants):
    """Pointers come first in the signature, then `sizes` that are known at run time, then the constants."""
    names = function.arg_names
    signature = dict.fromkeys(names, f"*{dtype}") | dict.fromkeys(sizes, "i32") | dict.fromkeys(constants, "constexpr")
    values = {(names.index(name),): value for name, value in constants.items()}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name not in constants}
    source = ASTSource(function, signature, values, aligned)
    return triton.compile(source, target=TARGETS[arch], options=options)


def compiled_resident(arch, dtype="bf16", M=16, H=64, DOTS=1, BARRIERS=1, PRECISION="tf32", T=None, **options):
    constants = {} if T is None else {"T": T}
    constants |= {"M": M, "H": H, "DOTS": DOTS, "BARRIERS": BARRIERS, "PRECISION": PRECISION}
    constants["CARRY"] = tl.float64 if dtype == "fp64" else tl.float32
    return compiled(resident, arch, dtype, ["T"] if T is None else [], options, **constants)


def compiled_tiled(arch, H=None, **options):
    constants = {} if H is None else {"H": H}
    return compiled(tiled, arch, "bf16", ["H"] if H is None else [], options, M=16, N=32, K=64, **constants)


def resident_step(arch, **variant):
    count = per_step(compiled_resident(arch, **variant), time_loop=True)
    assert count.reason is None
    return count.step


@each_target
def test_a_time_step_has_the_dots_loads_and_stores_that_were_written(arch):
    step = resident_step(arch)
    instructions = {"sm_80": 8, "sm_90": 8, "gfx942": 4}  # 16 x 64 x 64 over 4 warps, 16 x 8 x 16 or 16 x 16 x 16 each
    assert (step.tensor_core, step.global_loads, step.global_stores) == (instructions[arch], 1, 1)
    assert 0 < step.shared_loads < step.instructions
    assert 0 < step.shared_stores < step.instructions


@each_target
def test_one_barrier_more_is_one_barrier_more(arch):
    two, three = resident_step(arch, BARRIERS=2), resident_step(arch, BARRIERS=3)
    assert three.instructions > two.instructions
    assert three._replace(instructions=0) == two._replace(barriers=two.barriers + 1, instructions=0)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_a_second_dot_doubles_the_tensor_core_instructions(arch):
    assert resident_step(arch, DOTS=2).tensor_core == 2 * resident_step(arch).tensor_core


@pytest.mark.parametrize(
    ("arch", "variant", "tensor_core"),
    [
        ("sm_90", {"M": 64}, {4}),  # wgmma, 64 x 64 x 16
        ("sm_80", {"dtype": "fp64", "H": 32}, {16}),  # 8 x 8 x 4, and calls of a division out of line
        ("sm_90", {"dtype": "fp64", "H": 32}, {2, 16}),  # 16 x 8 x 16, in Triton 3.9 as on sm_80
        ("sm_80", {"H": 16}, {1}),  # half of the warps repeat what the others do
        ("sm_80", {"dtype": "fp32", "PRECISION": "ieee", "H": 32}, {0}),
        ("sm_100", {"dtype": "fp32", "PRECISION": "ieee", "H": 32}, {0}),
        ("gfx942", {"dtype": "fp32", "PRECISION": "ieee", "H": 32}, {16}),  # 16 x 16 x 4, on every warp
    ],
)
def test_steps_are_known_by_their_products_in_every_kind_of_dot(arch, variant, tensor_core):
    assert resident_step(arch, **variant).tensor_core in tensor_core


@each_target
@pytest.mark.parametrize("stages", [1, 3])
@pytest.mark.parametrize("trips", [1, 8, 128])
def test_a_launch_per_step_counts_the_inner_loop_as_often_as_it_runs(arch, stages, trips):
    """The compiler unrolls, peels and pipelines such loops as it likes: what there is to multiply stays."""
    kernel = compiled_tiled(arch, H=64 * trips, num_stages=stages)
    step = per_step(kernel, time_loop=False).step
    assert step.tensor_core == trips * (8 if arch == "gfx942" else 4)
    assert step.barriers >= trips
    assert step.instructions > step.barriers + step.tensor_core + step.shared_loads + step.shared_stores


@pytest.mark.parametrize(("arch", "stages"), [("sm_80", 3), ("sm_90", 3), ("gfx942", 1)])
def test_iterations_that_only_a_launch_knows_are_given(arch, stages):
    kernel = compiled_tiled(arch, num_stages=stages)
    four, eight, twelve = (per_step(kernel, time_loop=False, trips=trips).step for trips in (4, 8, 12))
    assert eight.tensor_core == 2 * four.tensor_core > 0
    assert twelve.global_stores == four.global_stores
    assert [c - b for b, c in zip(eight, twelve, strict=True)] == [b - a for a, b in zip(four, eight, strict=True)]
    assert "was not given" in per_step(kernel, time_loop=False).reason


@pytest.mark.parametrize(("arch", "stages"), [("sm_80", 1), ("gfx942", 2)])
def test_a_loop_unrolled_or_peeled_without_knowing_its_trips_gives_a_reason_and_no_number(arch, stages):
    count = per_step(compiled_tiled(arch, num_stages=stages), time_loop=False, trips=8)
    assert count.step is None
    assert "under a branch" in count.reason


@each_target
def test_a_loop_over_k_inside_the_time_loop(arch):
    step = per_step(compiled(nested, arch, "bf16", ["T"], {}, H=1024, K=32), time_loop=True).step
    assert step.tensor_core == 32 * (16 * 1024 * 32 // 4) // (16 * 16 * 16 if arch == "gfx942" else 16 * 8 * 16)
    assert step.barriers > 32


@each_target
def test_a_time_loop_that_is_gone_gives_a_reason_and_no_number(arch):
    count = per_step(compiled_resident(arch, T=1), time_loop=True)
    assert count.step is None
    assert "0 loops with dots" in count.reason


def test_without_tensor_cores_a_time_loop_of_known_length_gives_a_reason_and_no_number():
    kernel = compiled_resident("sm_80", dtype="fp32", PRECISION="ieee", T=100)
    assert "may have been unrolled" in per_step(kernel, time_loop=True).reason


def test_tcgen05_gives_a_reason_and_no_number():
    assert "tcgen05" in per_step(compiled_resident("sm_100", M=64), time_loop=True).reason


@each_target
def test_spills_appear_where_registers_are_taken_away(arch):
    starved = {"waves_per_eu": 8} if arch == "gfx942" else {"maxnreg": 32}
    assert resources(compiled_resident(arch, M=32, H=128)).spills == 0
    assert resources(compiled_resident(arch, M=32, H=128, **starved)).spills > 0


@each_target
def test_shared_memory_is_what_a_launch_asks_for(arch):
    kernel = compiled_resident(arch)
    assert resources(kernel).shared_memory == kernel.metadata.shared >= 64 * 64 * 2
    assert 0 < resources(kernel).registers <= 255


TTIR = """module {{
  tt.func public @kernel(%T: i32) {{
    %h = scf.for %t = %a to %T step %b iter_args(%acc = %c) -> (tensor<16x16xf32>)  : i32 {{
      {}
    }}
  }}
}}"""
PRODUCT = (
    "%d = tt.dot %a, %b, %c, inputPrecision = tf32 : "
    "tensor<16x{0}xbf16{1}> * tensor<{0}x16xbf16{1}> -> tensor<16x16xf32{2}>"
)
LAYOUT = "#mma = #ttg.amd_mfma<{version = 3, warpsPerCTA = [1, 1], instrShape = [16, 16, 16], isTransposed = true}>\n"
MFMA = "\tv_mfma_f32_16x16x16_bf16 v[0:3], v[4:5], v[6:7], v[0:3]\n"
LOOP = ".LBB0_1:\n{}\ts_cbranch_scc1 .LBB0_1\n"


def assembled(*lines, depth=16):
    """A kernel whose source has one dot in one loop, and whose assembly is as given."""
    text = "kernel:\n" + "".join(lines) + "\ts_endpgm\n.Lfunc_end0:\n"
    ttir = TTIR.format(PRODUCT.format(depth, "", ""))
    ttgir = LAYOUT + PRODUCT.format(depth, ", #ttg.dot_op<{opIdx = 0, parent = #mma, kWidth = 4}>", ", #mma")
    return SimpleNamespace(name="kernel", asm={"source": "", "ttir": ttir, "ttgir": ttgir, "amdgcn": text})


def test_a_time_loop_with_two_steps_in_it_gives_a_reason_and_no_number():
    assert per_step(assembled(LOOP.format(MFMA + "\ts_barrier\n")), time_loop=True).step[:3] == (1, 3, 1)
    assert "a loop was unrolled" in per_step(assembled(LOOP.format(2 * MFMA)), time_loop=True).reason
    remainder = LOOP.format(2 * MFMA) + LOOP.replace("0_1", "0_2").format(MFMA)
    assert "2 loops with dots" in per_step(assembled(remainder), time_loop=True).reason


@pytest.mark.parametrize(("before", "body", "trips", "runs"), [(0, 1, 8, 8), (0, 2, 8, 4), (1, 1, 8, 7), (3, 4, 11, 2)])
def test_how_often_a_loop_runs_follows_from_its_products(before, body, trips, runs):
    kernel = assembled("\ts_barrier\n", before * MFMA, LOOP.format(body * MFMA))
    step = per_step(kernel, time_loop=False, trips=trips).step
    assert (step.barriers, step.tensor_core, step.instructions) == (1, trips, 2 + before + runs * (body + 1))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (LOOP.format(2 * MFMA), "no number of runs"),
        (LOOP.format(MFMA) + ".LBB0_2:\n\ts_nop\n\ts_cbranch_scc1 .LBB0_2\n", "trip count is not known"),
        ("\ts_cbranch_scc1 .LBB0_2\n" + LOOP.format("\ts_nop\n.LBB0_2:\n" + MFMA), "more than one place"),
        ("\ts_cbranch_scc1 .LBB0_2\n" + MFMA + ".LBB0_2:\n" + LOOP.format(MFMA), "under a branch"),
        ("\ts_setpc_b64 s[0:1]\n" + LOOP.format(MFMA), "s_setpc_b64 is not followed"),
    ],
)
def test_what_cannot_be_followed_gives_a_reason_and_no_number(lines, reason):
    count = per_step(assembled(lines), time_loop=False, trips=7)
    assert count.step is None
    assert reason in count.reason


@pytest.mark.parametrize("marked", [False, True], ids=["Triton 3.6", "Triton 3.7"])
def test_a_function_that_is_called_by_name_is_passed_over(marked, monkeypatch):
    """As nvdisasm tells of divisions in float64: the mark is what newer ones add."""
    flow = {"control-flow": "True"}
    call = flow | ({"subroutine-call": "True"} if marked else {})
    code = [
        {"opcode": "FADD", "operands": "R0,R1,R2"},
        {"opcode": "CALL.REL.NOINC", "operands": "$__internal_0_$divide", "other-attributes": call},
        {"opcode": "BRA", "operands": "0x0", "predicate": "@P0", "other-attributes": flow},
        {"opcode": "EXIT", "other-attributes": flow},
    ]
    divide = [{"opcode": "RET.REL.NODEC", "operands": "R14,kernel", "other-attributes": flow}]
    listing = [
        {"function-name": "kernel", "start": 0, "sass-instructions": code},
        {"function-name": "$__internal_0_$divide", "start": 64, "sass-instructions": divide},
    ]
    monkeypatch.setattr("seqnets.kernels.report.flow.tool", lambda *_: json.dumps([{}, listing]))
    found = regions(SimpleNamespace(name="kernel", asm={"cubin": b""}))
    assert found.once == ["EXIT"]
    assert [sorted(loop.once) for loop in found.loops] == [["BRA", "CALL.REL.NOINC", "FADD"]]


@pytest.mark.parametrize(
    ("opcode", "products"),
    [
        ("HMMA.16816.F32.BF16", 16 * 8 * 16),
        ("HMMA.1688.F32.TF32", 16 * 8 * 8),
        ("DMMA.884", 8 * 8 * 4),
        ("DMMA.16x8x16", 16 * 8 * 16),
        ("HGMMA.64x128x16.F32.BF16", 64 * 128 * 16 // 4),
        ("v_mfma_f32_32x32x8_bf16", 32 * 32 * 8),
        ("v_mfma_f32_4x4x4_16b_f16", 4 * 4 * 4 * 16),
        ("HFMA2.MMA", 0),
        ("FFMA", 0),
    ],
)
def test_products_of_an_instruction_are_in_its_name(opcode, products):
    assert tensor_work(opcode) == products


def test_an_instruction_without_a_shape_in_its_name_is_refused():
    with pytest.raises(Unclear, match="UTCHMMA"):
        tensor_work("UTCHMMA.2CTA")


def test_floors_add_what_cannot_overlap():
    h100 = gpu("sm_90")
    weight = 128 * 512
    found = floors(h100, weight_bytes=2 * weight, barriers=6, products=16 * weight, rate="fp16")
    assert found.shared_memory == pytest.approx(1024 / 1.83)
    assert found.tensor_cores == pytest.approx(512 / 1.83)
    assert found.step == found.shared_memory + found.barriers
    launched = floors(h100, weight_bytes=0, barriers=6, products=16 * weight, rate="fp16", launches=1)
    assert launched.step == launched.tensor_cores + found.barriers + LAUNCH_NS


def test_a_gpu_is_found_by_name_or_architecture():
    assert gpu("sm_86").name == "A10"
    assert gpu("RTX 3090").arch == "sm_86"
    assert {g.arch for g in GPUS} == {"sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "gfx942"}
    with pytest.raises(ValueError, match="sm_70.*known are A100"):
        gpu("sm_70")
