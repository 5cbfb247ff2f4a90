"""Gives something that is no number."""

import numpy as np

from benchmarks.contenders.with_torch import prepare as prepare_right
from benchmarks.contenders.with_torch import versions, why_not  # noqa: F401 - part of what a contender is


def prepare(case, arrays, settings):
    work = prepare_right(case, arrays, settings._replace(contender="torch.nn"))
    return work._replace(outputs=lambda result: {"y": np.array(["words"])})
