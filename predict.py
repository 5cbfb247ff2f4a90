"""python predict.py CHECKPOINT "I didn't like it: 3/10" […]: print a trained model's predictions, one per line.

A classifier prints the label and its probability. A language model continues the text, a translator translates it, and
a model of music writes a MIDI file with the given name. With ``-`` in place of the texts, they are the lines of
standard input that are not blank. Without texts on a terminal, a prompt asks for them. This is not a Hydra command,
because Hydra's grammar rejects ordinary sentences.
"""

import argparse
import json
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from seqnets.errors import SeqnetsError
from seqnets.interrupts import interrupted_status, interruptible

OPTIONS = {  # the options of all tasks; each task lists in `options` those that it takes
    "length": (int, "N", "how many steps to generate"),
    "temperature": (float, "T", "below 1 more predictable, above 1 more surprising"),
    "seed": (int, "S", "of what is drawn: equal seeds give equal predictions"),
    "beam": (int, "K", "translations kept at each step of the search; 1 is greedy"),
}


def main(arguments: list[str] | None = None) -> None:
    with interruptible():
        _main(arguments)


def _main(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="runs/…/checkpoints/last.ckpt")
    parser.add_argument("text", nargs="*", help="what to judge or to go on from; - reads lines from standard input")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--trust-cells", action="store_true", help="import the modules of the checkpoint's own cells")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw gates and states as the text is read")
    for name, (kind, metavar, meaning) in OPTIONS.items():
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=meaning)
    args = parser.parse_args(arguments)
    prompting = not args.text and sys.stdin.isatty()
    texts = [line for line in sys.stdin.read().splitlines() if line.strip()] if args.text == ["-"] else args.text
    if not texts and not prompting:
        parser.error("there is no text on standard input" if args.text else "give a text, or - for standard input")
    if args.plot and len(texts) != 1:
        parser.error(f"--plot draws one text, not {len(texts)}")
    if args.plot and (args.plot.exists() or args.plot.suffix != ".png" or not args.plot.absolute().parent.is_dir()):
        parser.error(f"--plot {args.plot}: give the name of a new .png file in a folder that exists")
    for number, text in enumerate(texts, 1):
        if not text.strip():
            parser.error(f"text {number} of {len(texts)} is empty; there is nothing to judge")

    from seqnets.training import load_trained  # slow to import, so only after the arguments are checked

    try:
        trained = load_trained(args.checkpoint, args.trust_cells)
    except SeqnetsError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    options = {name: value for name in OPTIONS if (value := getattr(args, name)) is not None}
    for given in _typed() if prompting else [texts]:
        try:
            if args.plot:  # before the prediction, which may write a file
                trained.plot(given[0], args.plot)
                print(f"gates and states: {args.plot}", file=sys.stderr)
            _print(trained.predict(given, **options), args.json)
        except ValueError as error:  # a text without a word, such as "!?"
            if not prompting:
                parser.error(str(error))
            print(error, file=sys.stderr)


def _typed() -> Iterator[list[str]]:
    """Yield one typed text at a time, until the end of the input or an interrupt."""
    with suppress(ImportError):  # Windows has no readline
        import readline  # noqa: F401  lines can be edited and recalled
    while True:
        try:
            text = input("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            if interrupted_status() != 128 + signal.SIGINT:  # SIGTERM rather than Ctrl-C: the process must end
                raise
            print()
            return
        if text.strip():
            yield [text]


def _print(predictions: Iterable[Any], as_json: bool) -> None:
    for line, fields in predictions:
        print(json.dumps(fields, ensure_ascii=False) if as_json else line, flush=True)


if __name__ == "__main__":
    main()
