"""Defines complete models built from the recurrent layers."""

from seqnets.models.classifier import SequenceClassifier
from seqnets.models.front import ConvFront
from seqnets.models.language_model import LanguageModel
from seqnets.models.regressor import SequenceRegressor
from seqnets.models.step_predictor import StepPredictor
from seqnets.models.translator import Translator

__all__ = ["ConvFront", "LanguageModel", "SequenceClassifier", "SequenceRegressor", "StepPredictor", "Translator"]
