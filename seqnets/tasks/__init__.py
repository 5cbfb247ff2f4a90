"""What is learnt: LightningModules that give a model its loss and metrics."""

from seqnets.tasks.classification import Classification
from seqnets.tasks.task import Answer, Task
from seqnets.tasks.translation import Translation

__all__ = ["Answer", "Classification", "Task", "Translation"]
