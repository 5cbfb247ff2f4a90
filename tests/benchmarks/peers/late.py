"""Is right at first, and fails when it is to be timed."""

from benchmarks.contenders.with_torch import prepare as prepare_right
from benchmarks.contenders.with_torch import versions, why_not  # noqa: F401 - part of what a contender is


def prepare(case, arrays, settings):
    work = prepare_right(case, arrays, settings._replace(contender="torch.nn"))
    calls = []

    def call():
        calls.append(1)
        if len(calls) > 3:
            raise MemoryError("no more")
        return work.call()

    return work._replace(call=call)
