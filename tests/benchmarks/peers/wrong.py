"""Gives results of which one number is off by a thousandth."""

from benchmarks.contenders.with_torch import prepare as prepare_right
from benchmarks.contenders.with_torch import versions, why_not  # noqa: F401 - part of what a contender is


def prepare(case, arrays, settings):
    work = prepare_right(case, arrays, settings._replace(contender="torch.nn"))

    def outputs(result):
        found = work.outputs(result)
        found["y"].flat[-1] += 1e-3
        return found

    return work._replace(outputs=outputs)
