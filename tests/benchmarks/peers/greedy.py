"""Wants more memory than there is."""

import numpy as np


def versions(settings):
    return {"greedy": "1"}


def why_not(case, settings):
    return None


def prepare(case, arrays, settings):
    np.ones(1 << 50)
