"""python predict.py CHECKPOINT "I didn't like it: 3/10" […]: label and probability of each text, one per line.

With ``-`` in place of the texts, the lines on standard input that are not blank. Not Hydra: its grammar rejects ordinary sentences.
"""

import argparse
import json
import sys
from pathlib import Path

from seqnets.errors import SeqnetsError


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="runs/…/checkpoints/last.ckpt")
    parser.add_argument("text", nargs="+", help="what to judge; - reads lines from standard input")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--trust-cells", action="store_true", help="import the modules of the checkpoint's own cells")
    args = parser.parse_args(arguments)
    texts = args.text
    if texts == ["-"]:
        texts = [line for line in sys.stdin.read().splitlines() if line.strip()]
    if not texts:
        parser.error("there is no text on standard input")
    for number, text in enumerate(texts, 1):
        if not text.strip():
            parser.error(f"text {number} of {len(texts)} is empty; there is nothing to judge")

    from seqnets.training import load_trained  # slow to import: not before the arguments are known to be good

    try:
        trained = load_trained(args.checkpoint, args.trust_cells)
    except SeqnetsError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    try:
        probabilities = trained.probabilities(texts)
    except ValueError as error:  # a text without a word, such as "!?"
        parser.error(str(error))
    width = max(map(len, trained.labels))
    for text, row in zip(texts, probabilities, strict=True):
        probability, label = float(row.max()), trained.labels[int(row.argmax())]
        if args.json:
            print(json.dumps({"label": label, "probability": round(probability, 6), "text": text}, ensure_ascii=False))
        else:
            print(f"{label:{width}}  {probability:.4f}  {text}")


if __name__ == "__main__":
    main()
