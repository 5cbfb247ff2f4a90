"""Workers of a proof: whatever happens to one task costs that task alone."""

import multiprocessing
import os
import time

import pytest

from benchmarks.prove.workers import Task, run
from tests.benchmarks import tasks


def outcomes(given, tmp_path, number=1, until=60.0):
    return list(run(given, number, tasks.setup, tmp_path, time.monotonic() + until))


def identify(value, **options):
    return Task(f"task {value}", tasks.identify, (value,), 60, **options)


def test_tasks_are_done_in_order_in_one_process_that_was_set_up(tmp_path):
    found = outcomes([identify(value) for value in range(3)], tmp_path)
    assert [outcome.found["value"] for outcome in found] == [0, 1, 2]
    assert all(outcome.status == "done" and outcome.why is None and outcome.seconds > 0 for outcome in found)
    assert {outcome.found["set_up"] for outcome in found} == {"done"}
    assert len({outcome.found["process"] for outcome in found}) == 1
    assert found[0].found["process"] != os.getpid()


@pytest.mark.parametrize(
    ("function", "status", "why", "details"),
    [
        (tasks.fail, "failed", "RuntimeError: CUDA error: an illegal memory access was encountered", "Traceback"),
        (tasks.end, "crashed", "its process ended with exit status 3", "the last words"),
        (tasks.crash, "crashed", "its process was ended by SIGSEGV", ""),
        (tasks.hang, "hung", "it was stopped after", "before it hangs"),
    ],
)
def test_one_that_goes_wrong_costs_its_own_row_and_its_process(function, status, why, details, tmp_path):
    limit = 5 if function is tasks.hang else 60
    first, bad, last = outcomes([identify(0), Task("bad", function, (), limit), identify(1)], tmp_path)
    assert (bad.task.name, bad.status, bad.found) == ("bad", status, {})
    assert bad.why.startswith(why) and details in bad.details
    assert last.status == "done"
    assert first.found["process"] != last.found["process"]  # after an error of CUDA all else would fail too


def test_groups_share_no_process(tmp_path):
    found = outcomes(
        [identify(0), identify(1, group="a"), identify(2, group="b"), identify(3, group="a"), identify(4)], tmp_path
    )
    none, a, b, again, none_again = (outcome.found["process"] for outcome in found)
    assert len({none, a, b}) == 3 and a == again and none == none_again


def test_a_process_that_says_it_is_spent_does_nothing_more(tmp_path):
    spent, other = outcomes([Task("spent", tasks.spend, (), 60), identify(0)], tmp_path)
    assert spent.status == "done" and set(spent.found) == {"process"}
    assert spent.found["process"] != other.found["process"]


def test_what_a_process_printed_is_kept_with_the_task_that_it_is_of(tmp_path):
    silent, loud, after = outcomes([identify(0), Task("loud", tasks.warn, (), 60), identify(1)], tmp_path)
    assert silent.details is None and loud.details == "a warning" and after.details is None


def test_several_processes_work_at_once(tmp_path):
    given = [Task("hang", tasks.hang, (), 5), *(identify(value) for value in range(3))]
    found = outcomes(given, tmp_path, number=2)
    assert [outcome.status for outcome in found] == ["done"] * 3 + ["hung"]


def test_what_is_not_done_in_time_is_left_out_and_its_process_ended(tmp_path):
    start = time.monotonic()
    found = outcomes([identify(0), Task("hang", tasks.hang, (), 60), identify(1)], tmp_path, until=6)
    assert [outcome.task.name for outcome in found] == ["task 0"]
    assert time.monotonic() - start < 20


def test_closing_ends_all_processes(tmp_path):
    running = run([identify(0), Task("hang", tasks.hang, (), 60)], 2, tasks.setup, tmp_path, time.monotonic() + 60)
    next(running)
    ours = multiprocessing.active_children()
    assert len(ours) == 2
    running.close()
    assert not any(process.is_alive() for process in ours)
