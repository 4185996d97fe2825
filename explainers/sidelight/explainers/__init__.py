"""Shapley values, and the broker through which every explainer calls a live model."""

from sidelight.explainers._broker import Broker
from sidelight.explainers._grid import Grid
from sidelight.explainers._pacing import Limits
from sidelight.explainers._predicting import Answer, LocalModel, Predict, Target
from sidelight.explainers._rows import Background, Columns
from sidelight.explainers._session import Session
from sidelight.explainers._shapley import Explained, Shapley
from sidelight.explainers._sharing import Usage
from sidelight.explainers.errors import (
    BadAnswer,
    BudgetTooSmall,
    DeadlineExceeded,
    ExplainerError,
    ModelError,
    ModelUnavailable,
    OutputUnknown,
    ParameterError,
    RowError,
    VersionChanged,
)

__all__ = [
    "Answer",
    "Background",
    "BadAnswer",
    "Broker",
    "BudgetTooSmall",
    "Columns",
    "DeadlineExceeded",
    "Explained",
    "ExplainerError",
    "Grid",
    "Limits",
    "LocalModel",
    "ModelError",
    "ModelUnavailable",
    "OutputUnknown",
    "ParameterError",
    "Predict",
    "RowError",
    "Session",
    "Shapley",
    "Target",
    "Usage",
    "VersionChanged",
]
