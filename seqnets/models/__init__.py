"""Whole models around the recurrent layers."""

from seqnets.models.classifier import SequenceClassifier
from seqnets.models.front import ConvFront

__all__ = ["ConvFront", "SequenceClassifier"]
