"""Trains and evaluates models from a Hydra configuration, and loads trained models from checkpoints."""

from seqnets.training.config import check_config, register_trainer
from seqnets.training.evaluate import evaluate
from seqnets.training.run import train
from seqnets.training.trained import Trained, load_trained

register_trainer()  # before Hydra composes: conf/trainer/default.yaml builds on it

__all__ = ["Trained", "check_config", "evaluate", "load_trained", "train"]
