"""Whole models around the recurrent layers."""

from seqnets.models.classifier import SequenceClassifier
from seqnets.models.front import ConvFront
from seqnets.models.language_model import LanguageModel

__all__ = ["ConvFront", "LanguageModel", "SequenceClassifier"]
