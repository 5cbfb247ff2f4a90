"""Provides the tasks that models learn: LightningModules with a loss and metrics."""

from seqnets.tasks.classification import Classification
from seqnets.tasks.forecasting import Forecasting
from seqnets.tasks.language_modelling import LanguageModelling
from seqnets.tasks.memory import Recall, Regression
from seqnets.tasks.polyphony import Polyphony
from seqnets.tasks.task import Prediction, Task
from seqnets.tasks.translation import Translation

__all__ = [
    "Classification",
    "Forecasting",
    "LanguageModelling",
    "Polyphony",
    "Prediction",
    "Recall",
    "Regression",
    "Task",
    "Translation",
]  # fmt: skip
