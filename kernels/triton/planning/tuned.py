"""Keeps on disk the plans that `autotune` measured fastest on this machine, keyed by what they depend on."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch

from seqnets.kernels import store
from seqnets.kernels.triton.planning.arch import Arch
from seqnets.kernels.triton.planning.candidates import candidates
from seqnets.kernels.triton.planning.capacity import Demand
from seqnets.kernels.triton.planning.plan import Plan

ENVIRONMENT_VARIABLE = "SEQNETS_TUNED"


def is_consulted() -> bool:
    """Tell whether measured plans overrule the capacity rule: always, unless ``SEQNETS_TUNED=0`` is set."""
    return os.environ.get(ENVIRONMENT_VARIABLE, "").lower() not in ("0", "false", "off", "no")


@cache
def tuned_plan(digest: str, demand: Demand, arch: Arch, device: torch.device) -> Plan | None:
    """Return the measured plan for a generated cell, given by its digest, or None.

    A plan that is no longer among the candidates is ignored. The disk is read once per process.
    """
    known = store.read("plan", _key(digest, demand, device), lambda value: value["plan"])
    return next((plan for plan in candidates(demand, arch) if plan._asdict() == known), None)


def keep(digest: str, demand: Demand, device: torch.device, plan: Plan, **facts: Any) -> None:
    """Remember a plan, with JSON facts on how it was found, for this process and others."""
    store.write("plan", _key(digest, demand, device), {"plan": plan._asdict(), **facts})
    tuned_plan.cache_clear()


def _key(digest: str, demand: Demand, device: torch.device) -> dict[str, Any]:
    return {**store.environment(device), "cell": digest, **demand._asdict(), "dtype": str(demand.dtype)}
