"""Measures what seqnets' layers cost beside those of other libraries. See docs/benchmarks.md.

    python -m benchmarks [preset=quick|full|gpu] [key=value …]   measure; see conf/benchmark.yaml
    python -m benchmarks resume FOLDER                           go on with a run that was interrupted
    python -m benchmarks compare OLD NEW                         what became faster or slower beyond the noise
    python -m benchmarks show RUN [--markdown]                   the tables of a run again
    python -m benchmarks prove [--minutes 6] [--dry] …           check and time the kernels on this GPU

OLD, NEW and RUN are the folders of runs, or their results.json. `compare` exits with status 1 if something is slower.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from seqnets.interrupts import interrupted_status, interruptible

if TYPE_CHECKING:
    from omegaconf import DictConfig


def measure(cfg: DictConfig) -> None:
    from benchmarks.runner import run
    from seqnets.training.config import resolved
    from seqnets.training.preflight import plain_errors
    from seqnets.training.run_folder import remove_empty

    with plain_errors():
        folder = Path(cfg.run_dir)  # Hydra has created it
        try:
            config = resolved(cfg)
            del config["run_dir"]
            results = run(config, folder)
        finally:
            remove_empty(folder)
        if results["status"] == "interrupted":
            sys.exit(interrupted_status())
        if not any(measurement["results"] for measurement in results["measurements"]):
            sys.exit("nothing was measured")


def commands() -> argparse.ArgumentParser:
    """Return the parser of the commands that Hydra cannot parse, as it has no positional arguments."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = parser.add_subparsers(dest="command", required=True)
    resume = chosen.add_parser("resume", help="go on with a run that was interrupted")
    resume.add_argument("run", type=Path)
    against = chosen.add_parser("compare", help="what became faster or slower beyond the noise")
    against.add_argument("old", type=Path)
    against.add_argument("new", type=Path)
    against.add_argument(
        "--least", type=float, default=0.05, help="changes of less are noise (default: 0.05, five percent)"
    )
    show = chosen.add_parser("show", help="the tables of a run again")
    show.add_argument("run", type=Path)
    show.add_argument("--markdown", action="store_true")
    chosen.add_parser("prove", help="check and time the kernels on this GPU", add_help=False)
    return parser


def main() -> int:
    with interruptible():  # an interrupted run keeps its results
        return _main()


def _main() -> int:
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if first == "prove":  # a machine with a GPU may have only torch and Triton
        from benchmarks.prove.command import prove

        return prove(sys.argv[2:])
    if first not in ("-h", "--help") and ("=" in first or first.startswith("-") or not first):  # what Hydra takes
        import hydra

        hydra.main(version_base="1.3", config_path="../conf", config_name="benchmark")(measure)()
        return 0
    return _command(commands().parse_args())


def _command(options: argparse.Namespace) -> int:
    from benchmarks.compare import print_comparison
    from benchmarks.display import markdown, show_tables
    from benchmarks.results import read_results
    from benchmarks.runner import run
    from seqnets.training.preflight import plain_errors

    with plain_errors():
        if options.command == "resume":
            folder = options.run if options.run.is_dir() else options.run.parent
            results = run(read_results(options.run)["config"], folder, go_on=True)
            return interrupted_status() if results["status"] == "interrupted" else 0
        if options.command == "compare":
            return print_comparison(options.old, options.new, options.least)
        results = read_results(options.run)
        if options.markdown:
            print(markdown(results), end="")
        else:
            show_tables(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
