"""The process in which interpreted tests run: pytest, asked for one test after another."""

import contextlib
import os
import sys

import pytest


def serve(connection, files):
    """Collect `files`; then run every test whose id comes down `connection`, and send its reports back."""
    os.environ["TRITON_INTERPRET"] = "1"
    assert "triton" not in sys.modules, "Triton reads TRITON_INTERPRET as it is imported, and was imported before"
    pytest.main(
        ["-o", "addopts=", "-p", "no:terminal", "-p", "no:cacheprovider", "-o", "log_level=WARNING", *files],
        [_Server(connection)],
    )


class _Server:
    def __init__(self, connection):
        self.connection = connection
        self.not_collected = []
        self.reports = []

    def pytest_collectreport(self, report):
        if report.failed:
            self.not_collected.append(report.longreprtext)

    def pytest_runtestloop(self, session):
        items = {item.nodeid: item for item in session.items}
        with contextlib.suppress(EOFError, BrokenPipeError):  # the other end is closed: nothing more to run
            while name := self.connection.recv():
                self.connection.send(self._run(items[name]) if name in items else "\n".join(self.not_collected))
        return True

    def _run(self, item):
        hook, self.reports = item.config.hook, []
        hook.pytest_runtest_protocol(item=item, nextitem=None)
        return [hook.pytest_report_to_serializable(config=item.config, report=report) for report in self.reports]

    def pytest_runtest_logreport(self, report):
        self.reports.append(report)
