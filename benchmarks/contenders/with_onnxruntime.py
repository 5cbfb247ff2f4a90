"""Runs ONNX Runtime on a model of LSTM, GRU or RNN nodes, as an export of `torch.nn`'s layers has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from benchmarks.cases import Case, LayerCase
from benchmarks.contenders import Absent, Arrays, Settings, Work

# ONNX's gates, i o f c and z r h, by their places in torch.nn's order
ORDERS = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn_tanh": (0,), "rnn_relu": (0,)}
NODES = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN", "rnn_relu": "RNN"}
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def versions(settings: Settings) -> dict[str, Any]:
    if PROVIDERS[settings.device] not in ort.get_available_providers():
        raise Absent(f"this ONNX Runtime has no {PROVIDERS[settings.device]}; pip install onnxruntime-gpu")
    return {"onnxruntime": ort.__version__, "onnx": onnx.__version__}


def why_not(case: Case, settings: Settings) -> str | None:
    if not isinstance(case, LayerCase):
        return "no training loop is written for it here"
    if case.cell not in NODES:
        return "ONNX has no such operator"
    if case.mode == "train":
        return f"ONNX Runtime's {NODES[case.cell]} has no gradients"
    if case.dtype != "fp32":
        return "the CPU's kernels of ONNX Runtime are for float32, and no other dtype is measured"
    return None


def prepare(case: Case, arrays: Arrays, settings: Settings) -> Work:
    assert isinstance(case, LayerCase)
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    tf32 = {"use_tf32": int(settings.precision == "tf32")} if settings.device == "cuda" else {}
    session = ort.InferenceSession(
        _model(case, arrays).SerializeToString(), options, providers=[(PROVIDERS[settings.device], tf32)]
    )

    def placed(array: np.ndarray) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), settings.device)

    if case.mode == "step":
        return _step(case, arrays, session, placed)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", placed(arrays["x"]))
    if case.ragged:
        binding.bind_ortvalue_input("lengths", placed(arrays["lengths"].astype(np.int32)))
    y = placed(np.empty((case.T, case.B, case.directions * case.H), np.float32))
    binding.bind_ortvalue_output("y", y)

    def call() -> ort.OrtValue:
        session.run_with_iobinding(binding)
        return y

    return Work(call, lambda y: None, lambda y: {"y": y.numpy()})


def _step(case: LayerCase, arrays: Arrays, session: ort.InferenceSession, placed: Any) -> Work:
    """Return the work of one step. Two sets of states alternate between being read and being written."""
    names = [name for name in ("h", "c") if name in arrays]
    x = placed(arrays["x"][None])
    states = [{name: placed(arrays[name][None]) for name in names} for _ in range(2)]
    bindings = []
    for old, new in (states, states[::-1]):
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", x)
        for name in names:
            binding.bind_ortvalue_input(name, old[name])
            binding.bind_ortvalue_output(f"{name}_new", new[name])
        bindings.append((binding, new["h"]))

    def call() -> ort.OrtValue:
        binding, h = bindings[0]
        session.run_with_iobinding(binding)
        bindings.reverse()
        return h

    return Work(call, lambda h: None, lambda h: {"y": h.numpy()[0]})


def _model(case: LayerCase, arrays: Arrays) -> onnx.ModelProto:
    T, B, I, H, D = case.T, case.B, case.I, case.H, case.directions
    states: list[str] = [name for name in ("h", "c") if name in arrays]

    def tensor(name: str, *shape: int, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, dtype, shape)

    inputs = [tensor("x", T, B, I), *(tensor(name, 1, B, H) for name in states)]
    inputs += [tensor("lengths", B, dtype=TensorProto.INT32)] if case.ragged else []
    constants = {f"{name}{k}": value for k in range(case.layers) for name, value in _weights(case, arrays, k).items()}
    if states:
        outputs = [tensor(f"{name}_new", 1, B, H) for name in states]
    else:
        outputs = [tensor("y", T, B, D * H)]
        constants["shape"] = np.array([T, B, D * H])
    graph = helper.make_graph(
        list(_nodes(case, states)),
        "layer",
        inputs,
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    # neither version is the newest, which ONNX Runtime may not read yet
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _nodes(case: LayerCase, states: list[str]) -> Iterator[onnx.NodeProto]:
    options: dict[str, Any] = {"hidden_size": case.H, "direction": "bidirectional" if case.bidirectional else "forward"}
    if case.cell == "gru":
        options["linear_before_reset"] = 1
    if NODES[case.cell] == "RNN":
        options["activations"] = [case.cell.removeprefix("rnn_").capitalize()] * case.directions
    x = "x"
    for k in range(case.layers):
        y = "y" if k == case.layers - 1 else f"y{k}"
        given = [x, f"W{k}", f"R{k}", f"B{k}", "lengths" if case.ragged else "", *states]
        if states:
            yield helper.make_node(NODES[case.cell], given, ["", *(f"{name}_new" for name in states)], **options)
            continue
        yield helper.make_node(NODES[case.cell], given, [f"split{k}"], **options)  # T D B H
        yield helper.make_node("Transpose", [f"split{k}"], [f"turned{k}"], perm=[0, 2, 1, 3])
        yield helper.make_node("Reshape", [f"turned{k}", "shape"], [y])
        x = y


def _weights(case: LayerCase, arrays: Arrays, k: int) -> Arrays:
    """Return W, R and B of layer `k` in ONNX's layout, with the directions first."""
    suffixes = [f"l{k}", f"l{k}_reverse"][: case.directions]

    def ordered(kind: str) -> np.ndarray:
        order = ORDERS[case.cell]
        gates = [np.split(arrays[f"{kind}_{suffix}"], len(order)) for suffix in suffixes]
        return np.stack([np.concatenate([parts[gate] for gate in order]) for parts in gates])

    biases = np.concatenate([ordered("bias_ih"), ordered("bias_hh")], axis=1)
    return {"W": ordered("weight_ih"), "R": ordered("weight_hh"), "B": biases}
