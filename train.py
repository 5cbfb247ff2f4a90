"""Trains an experiment: ``python train.py +experiment=imdb_bilstm [key=value …]``.

Several values and -m make a sweep. See conf/train.yaml.
"""

import hydra
from omegaconf import DictConfig

from seqnets.training import train
from seqnets.training.sweep_folder import continued, told_how_to_go_on

__all__ = ["main", "train"]


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    with told_how_to_go_on():
        if (rest := continued(cfg)) is not None:
            train(rest)


if __name__ == "__main__":
    main()
