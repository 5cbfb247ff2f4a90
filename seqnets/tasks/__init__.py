"""What is learnt: LightningModules that give a model its loss and metrics."""

from seqnets.tasks.classification import Classification
from seqnets.tasks.language_modelling import LanguageModelling
from seqnets.tasks.task import Answer, Task

__all__ = ["Answer", "Classification", "LanguageModelling", "Task"]
