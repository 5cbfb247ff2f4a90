"""Prints a checkpoint's test metrics: ``python evaluate.py ckpt_path=runs/…/checkpoints/last.ckpt [data.path=…]``.

See conf/evaluate.yaml.
"""

import hydra
from omegaconf import DictConfig

from seqnets.training import evaluate
from seqnets.training.preflight import plain_errors

__all__ = ["evaluate", "main"]


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    with plain_errors():
        evaluate(cfg)


if __name__ == "__main__":
    main()
