"""Small configurations and results."""

from pathlib import Path

CONF = Path(__file__).parents[2] / "conf"


def config_of(contenders=("seqnets", "torch.nn"), **suites):
    """One that is measured in no time."""
    return {
        "seed": 0,
        "device": "cpu",
        "threads": 1,
        "precision": "ieee",
        "seconds": 0.01,
        "turns": 3,
        "limits": {"prepare": 60, "run": 60},
        "unroll": 0,
        "contenders": list(contenders),
        "pythons": {},
        "only": None,
        "suites": suites,
    }


ENVIRONMENT = {
    "command": [], "seed": 0, "seqnets": "1", "commit": "abc", "python": "3", "torch": "2", "platform": "p", "cpu": "c",
    "threads": 1, "device": "cpu", "precision": "ieee",
}  # fmt: skip


def results_of(*measurements):
    """Of a run that measured these."""
    return {
        "schema": 1,
        "status": "finished",
        "environment": ENVIRONMENT,
        "machine": {"gflops": 100.0, "gbytes_per_second": 10.0, "source": "made up"},
        "config": {},
        "contenders": {"seqnets": {"versions": {}}, "torch.nn": {"versions": {}}},
        "measurements": list(measurements),
    }


def measured(case, **seconds):
    """Samples of seqnets, and of torch.nn as `torch`."""
    return {
        "case": case.to_dict(),
        "work": {"flops": 1e9, "bytes": 1e6, "chain_seconds": None},
        "results": {
            name.replace("torch", "torch.nn"): {"status": "measured", "seconds": list(samples), "calls": 1}
            for name, samples in seconds.items()
        },
    }
