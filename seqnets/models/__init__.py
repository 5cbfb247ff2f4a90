"""Whole models around the recurrent layers."""

from seqnets.models.classifier import SequenceClassifier
from seqnets.models.front import ConvFront
from seqnets.models.translator import Translator

__all__ = ["ConvFront", "SequenceClassifier", "Translator"]
