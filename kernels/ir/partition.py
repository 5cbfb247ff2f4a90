"""Chooses what a step keeps for its gradient: the fewest values from which the rest follows, without x and r.

An LSTM's gradient, traced alone, computes all gates again from x and r, so both would have to be kept. Of all sets of
values that separate the gradient from x and r in the graph, this module finds the cheapest: a minimum cut. Of several,
it takes the one nearest to the gradient, which leaves the least to be computed twice. For an LSTM, that set has the
four activated gates. States cost nothing, because they are kept anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import networkx as nx  # a dependency of torch

from seqnets.kernels.ir.graph import Builder, Graph, Node
from seqnets.kernels.ir.tracing import Graphs

TILE, COLUMN = 1000, 1  # the cost of keeping one value per unit, and one per row


class Split(NamedTuple):
    """Holds a step and its gradient, which takes what the step saves."""

    forward: Graph  # (x, r, state, params, masks) -> state, saved
    # (saved, new, state, params, masks, d_state) -> as in `Graphs`; `new` are the states that the step returned
    backward: Graph


def split(graphs: Graphs) -> Split:
    """Choose what the step saves, and rebuild the gradient so that it takes that in place of x and r."""
    joint = Builder()  # in which a value that both graphs compute is one node
    ours: dict[Node, Node] = {}
    for graph in graphs:
        for node in [*(n for group in graph.inputs.values() for n in group), *graph.order()]:
            ours[node] = joint.copy(node, [ours[arg] for arg in node.args])
    names = {ours[node]: name for graph in reversed(graphs) for node, name in graph.names.items() if node in ours}
    forward, backward = (
        Graph(graph.name, _translate(graph.inputs, ours), _translate(graph.outputs, ours), names) for graph in graphs
    )
    states = forward.outputs["state"]
    saved = _cheapest_cut(
        backward, free={*states, *(n for g in ("state", "params", "masks") for n in backward.inputs[g])}
    )

    behind = Builder()
    theirs: dict[Node, Node] = {}
    for k, node in enumerate(saved):
        theirs[node] = behind.input(names.get(node, f"saved_{k}"), node.rows, node.columns)
    for node in states:
        theirs[node] = behind.input(f"{names[node]}_new")

    def rebuilt(node: Node) -> Node:
        if node not in theirs:
            theirs[node] = behind.copy(node, list(map(rebuilt, node.args)))
        return theirs[node]

    given = {group: nodes for group, nodes in backward.inputs.items() if group not in ("x", "r")}
    inputs = {"saved": saved, "new": states, **given}
    outputs = {group: tuple(map(rebuilt, nodes)) for group, nodes in backward.outputs.items()}
    for nodes in inputs.values():
        for node in nodes:
            rebuilt(node)
    return Split(
        Graph(forward.name, forward.inputs, {"state": states, "saved": saved}, names),
        Graph(
            backward.name,
            _translate(inputs, theirs),
            outputs,
            {theirs[n]: name for n, name in names.items() if n in theirs},
        ),
    )


def _translate(groups: Mapping[str, tuple[Node, ...]], nodes: Mapping[Node, Node]) -> dict[str, tuple[Node, ...]]:
    return {group: tuple(nodes[node] for node in members) for group, members in groups.items()}


def _cheapest_cut(backward: Graph, free: set[Node]) -> tuple[Node, ...]:
    """Return the values to save, a cheapest cut of the graph.

    Every path from x and r to what is computed with d_state leads through a saved value or through a free one.
    """
    late = set(backward.inputs["d_state"])  # known only in backward
    order = backward.order()
    for node in order:
        if late.intersection(node.args):
            late.add(node)
    results = {node for group in backward.outputs.values() for node in group}
    wanted = [n for n in order if n not in late and (n in results or any(n in other.args for other in late))]

    flow = nx.DiGraph()
    flow.add_nodes_from(("projections", "gradient"))
    cut = [node for node in order if node not in late and node not in free]
    for node in cut:
        # truth values cannot be kept, so they have no limit
        limit = {} if node.logical else {"capacity": TILE if node.columns else COLUMN}
        flow.add_edge((node, "in"), (node, "out"), **limit)
        flow.add_edges_from(((arg, "out"), (node, "in")) for arg in node.args)
    flow.add_edges_from(("projections", (node, "in")) for group in ("x", "r") for node in backward.inputs[group])
    flow.add_edges_from(((node, "out"), "gradient") for node in wanted if node not in free)
    # of the cheapest cuts, this finds the one nearest to the gradient
    _, (_, near) = nx.minimum_cut(flow, "projections", "gradient")
    return tuple(node for node in cut if (node, "in") not in near and (node, "out") in near)
