"""What is worked out from samples, and which files are taken for results."""

import csv
import json
from types import SimpleNamespace

import pytest

from benchmarks.cases import LayerCase, TrainCase
from benchmarks.compare import compare, print_comparison
from benchmarks.cuda import cudnn_algorithm
from benchmarks.plots import plot_all
from benchmarks.results import figures, read_results, spread, work_of, write_csv
from benchmarks.tables import tables
from seqnets.errors import DataError
from seqnets.training.run_folder import write_json
from tests.benchmarks.runs import measured, results_of

CASE = LayerCase("layer", mode="train", T=10, B=2, I=3, H=4)
LARGER = LayerCase("layer", mode="train", T=10, B=2, I=3, H=8)


def test_medians_and_ratios_are_taken_over_turns():
    ours, theirs = figures(results_of(measured(CASE, seqnets=[1, 2, 3, 4, 5], torch=[2, 2, 9, 8, 5])))
    assert ours.seconds == spread([1, 2, 3, 4, 5]) and ours.seconds.median == 3
    assert theirs.ratio.median == 2  # of 2, 1, 3, 2, 1: not the ratio of the medians
    assert ours.microseconds_per_time_step == 3e6 / 10
    assert ours.gflops == pytest.approx(1 / 3) and ours.gbytes_per_second == pytest.approx(1e-3 / 3)
    assert ours.floor_share == pytest.approx(0.01 / 3)  # 1e9 operations at 100 GFLOP/s


def test_the_floor_is_the_slowest_of_products_traffic_and_chain():
    measurement = measured(CASE, seqnets=[1, 1])
    for work, floor in (
        ({"flops": 5e10, "bytes": 1e9, "chain_seconds": 0.01}, 0.5),
        ({"flops": 1e10, "bytes": 4e9, "chain_seconds": 0.01}, 0.4),
        ({"flops": 1e10, "bytes": 1e9, "chain_seconds": 0.04}, 0.8),  # 10 steps, forward and backward
    ):
        (found,) = figures(results_of(measurement | {"work": work}))
        assert found.floor_share == pytest.approx(floor)


def test_work_counts_products_and_bytes_once():
    case = LayerCase("layer", mode="infer", T=10, B=2, I=3, H=4, layers=2, bidirectional=True)
    rows, G = 20, 4
    flops = 2 * rows * G * 4 * (2 * (3 + 4) + 2 * (8 + 4))
    weights = G * 4 * (2 * (3 + 4 + 2) + 2 * (8 + 4 + 2))
    assert work_of(case, G, rows) == {"flops": flops, "bytes": 4 * (weights + rows * (3 + 8))}


def test_results_are_written_and_read_again(tmp_path):
    results = results_of(measured(CASE, seqnets=[1.5], torch=[2.5]))
    write_json(tmp_path / "results.json", results)
    assert read_results(tmp_path) == read_results(tmp_path / "results.json") == results


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not JSON"),
        ("{}", "is not a benchmark's results"),
        (json.dumps(results_of() | {"schema": 2}), "schema"),
        (
            json.dumps(results_of({"case": CASE.to_dict(), "results": {"seqnets": {"status": "failed"}}})),
            "'why' is a required",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, text, told):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(DataError, match=told):
        read_results(tmp_path)


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_results(tmp_path / "nowhere")


def test_csv_has_a_line_for_each_contender_of_each_case(tmp_path):
    write_csv(
        tmp_path / "r.csv", results_of(measured(CASE, seqnets=[1, 1], torch=[2, 2]), measured(LARGER, seqnets=[4, 4]))
    )
    with (tmp_path / "r.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["contender"], r["H"], float(r["milliseconds"])) for r in rows] == [
        ("seqnets", "4", 1000), ("torch.nn", "4", 2000), ("seqnets", "8", 4000),
    ]  # fmt: skip
    assert rows[1]["ratio_to_seqnets"] == "2"


def test_tables_say_where_seqnets_is_slower_and_that_a_case_was_refused():
    slower = measured(CASE, seqnets=[2, 2, 2], torch=[1, 1, 1])
    refused = {"case": {"suite": "layer", "H": 0}, "refused": "H must be positive", "results": {}}
    times, means, rest = tables(results_of(slower, measured(LARGER, seqnets=[1, 1, 1], torch=[2, 2, 2]), refused))
    assert [row[2].slower for row in times.rows] == [True, False]
    assert any(note.startswith("slower than torch.nn (0.50, lstm train T=10") for note in times.notes)
    assert means.rows[0][1].text == "1.00 (0.50-2.00; 2)"
    assert rest.rows[0][1].text == "H must be positive"


def test_pictures_are_drawn_of_what_there_is(tmp_path):
    assert plot_all(results_of(), tmp_path) == []
    both = results_of(measured(CASE, seqnets=[1, 1], torch=[2, 2]), measured(LARGER, seqnets=[4, 4], torch=[5, 5]))
    drawn = plot_all(both, tmp_path)
    assert {path.name for path in drawn} == {"time_against_H.png", "speed_up_train.png"}
    for path in drawn:
        assert path.stat().st_size > 1000 and path.with_suffix(".svg").stat().st_size > 1000


class TestCompare:
    def verdicts(self, old, new, least=0.05):
        changes, _ = compare(results_of(old), results_of(new), least)
        return {change.contender: change.verdict for change in changes}

    def test_a_machine_that_is_slower_as_a_whole_is_no_change(self):
        old = measured(CASE, seqnets=[1.0, 1.01, 1.02], torch=[2.0, 2.01, 2.02])
        new = measured(CASE, seqnets=[2.0, 2.02, 2.04], torch=[4.0, 4.02, 4.04])
        assert self.verdicts(old, new)["seqnets"] == "same"

    def test_what_became_slower_beside_the_yardstick_is_told(self):
        old = measured(CASE, seqnets=[1.0, 1.01, 1.02], torch=[2.0, 2.01, 2.02])
        new = measured(CASE, seqnets=[1.5, 1.51, 1.52], torch=[2.0, 2.01, 2.02])
        assert self.verdicts(old, new)["seqnets"] == "slower"
        assert self.verdicts(new, old)["seqnets"] == "faster"

    def test_spread_turns_are_noise(self):
        old = measured(CASE, seqnets=[1.0, 1.5, 2.0, 2.5, 3.0])
        new = measured(CASE, seqnets=[1.2, 1.8, 2.4, 3.0, 3.6])
        assert self.verdicts(old, new) == {"seqnets": "same"}

    def test_small_changes_are_noise(self):
        old, new = measured(CASE, seqnets=[1.0, 1.0]), measured(CASE, seqnets=[1.04, 1.04])
        assert self.verdicts(old, new) == {"seqnets": "same"}
        assert self.verdicts(old, new, least=0.02) == {"seqnets": "slower"}

    def test_each_change_names_its_own_yardstick(self):
        both = measured(CASE, seqnets=[1.0, 1.0], torch=[2.0, 2.0])
        both["results"] = {
            "seqnets": both["results"]["seqnets"],
            "keras": both["results"]["seqnets"],
            "torch.nn": both["results"]["torch.nn"],
        }
        changes, _ = compare(results_of(both), results_of(both), 0.05)
        assert {c.contender: c.yardstick for c in changes} == {
            "seqnets": "torch.nn",
            "keras": "torch.nn",
            "torch.nn": "keras",
        }

    def test_what_can_no_longer_be_timed_is_told_and_fails(self, tmp_path, capsys):
        for name, results in (
            ("old", measured(CASE, seqnets=[1, 1], torch=[1, 1])),
            ("new", measured(CASE, seqnets=[1, 1], torch=[1, 1])),
        ):
            (tmp_path / name).mkdir()
            if name == "new":
                results["results"]["seqnets"] = {"status": "wrong", "why": "y is off"}
            write_json(tmp_path / name / "results.json", results_of(results))
        assert print_comparison(tmp_path / "old", tmp_path / "new", 0.05) == 1
        assert "was timed, is wrong: y is off" in capsys.readouterr().out
        assert print_comparison(tmp_path / "old", tmp_path / "old", 0.05) == 0

    def test_cases_that_one_run_lacks_are_left_out(self):
        assert self.verdicts(measured(CASE, seqnets=[1, 1]), measured(LARGER, seqnets=[1, 1])) == {}


@pytest.mark.parametrize(
    ("sizes", "algorithm"),
    [
        ({"H": 128}, "persistent small H"),
        ({"H": 192}, "persistent small H/standard"),
        ({"H": 192, "mode": "infer"}, "persistent small H"),
        ({"H": 256}, "standard"),
        ({"H": 128, "ragged": True}, "standard"),
        ({"H": 128, "dtype": "fp64"}, "standard"),
        ({"H": 512, "I": 128, "B": 8, "dtype": "fp16"}, "persistent"),
        ({"H": 512, "I": 128, "B": 8, "dtype": "bf16"}, "standard"),
        ({"H": 512, "I": 128, "B": 9, "dtype": "fp16"}, "standard"),
        ({"H": 512, "I": 128, "B": 136, "dtype": "fp16"}, "standard"),
        ({"H": 512, "I": 100, "B": 8, "dtype": "fp16"}, "standard"),
        ({"H": 512, "I": 128, "B": 8, "dtype": "fp16", "bidirectional": True}, "standard"),
        ({"H": 512, "I": 128, "B": 8, "dtype": "fp16", "cell": "gru"}, "standard"),
        ({"H": 384, "cell": "rnn_tanh", "mode": "infer"}, "persistent small H"),
    ],
)
def test_the_algorithm_that_pytorch_asks_of_cudnn(sizes, algorithm):
    h100 = SimpleNamespace(major=9, minor=0, multi_processor_count=132)
    assert cudnn_algorithm(LayerCase("layer", **sizes), h100) == algorithm


def test_an_epoch_is_the_mean_of_its_turns():
    case = TrainCase("train", experiment="imdb_bilstm", steps=2, epoch=True)
    result = {
        "status": "measured",
        "seconds": [1.0, 1.0, 4.0],
        "calls": 2,
        "epoch_steps": 10,
        "parameters": 7,
        "peak_bytes": [5e6],
    }
    (found,) = figures(results_of({"case": case.to_dict(), "results": {"seqnets": result}}))
    assert (
        found.seconds.median == 1 and found.epoch_seconds == 20 and found.peak_mb.median == 5 and found.parameters == 7
    )
