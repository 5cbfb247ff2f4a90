import pytest

from seqnets.training import train
from tests.data.synthetic import parquet_folder
from tests.training.helpers import small_run


@pytest.fixture(autouse=True)
def _no_data_of_this_machine(monkeypatch):
    monkeypatch.delenv("SEQNETS_DATA", raising=False)


@pytest.fixture
def reviews(tmp_path):
    """A folder of 40 training and 20 test reviews."""
    return parquet_folder(tmp_path / "reviews")


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """A function from the options of a run that was not ended to its folder and metrics; equal ones are run once."""
    known, folder = {}, tmp_path_factory.mktemp("whole")

    def run(*options):
        if options not in known:
            here = folder / str(len(known))
            known[options] = here / "run", train(small_run(parquet_folder(here / "reviews"), here / "run", *options))[0]
        return known[options]

    return run
