"""What is learnt: LightningModules that give a model its loss and metrics."""

from seqnets.tasks.classification import Classification

__all__ = ["Classification"]
