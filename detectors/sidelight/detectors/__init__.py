"""Drift and outlier statistics: streaming, mergeable, calibrated."""

from sidelight.detectors._categorical_reference import CategoricalReference
from sidelight.detectors._chi_square import ChiSquare
from sidelight.detectors._comparison import Comparison
from sidelight.detectors._conformal_ranks import ConformalRanks
from sidelight.detectors._kolmogorov_smirnov import KolmogorovSmirnov
from sidelight.detectors._look import Answer, Look
from sidelight.detectors._mahalanobis import FittedMahalanobis, Mahalanobis
from sidelight.detectors._monitor import DeploymentMonitor, Step
from sidelight.detectors._numeric_reference import NumericReference
from sidelight.detectors._outlier_rate import OutlierRate
from sidelight.detectors._population_stability import PopulationStability
from sidelight.detectors._reference import Reference
from sidelight.detectors._rows import Rows
from sidelight.detectors._settings import DetectionSettings
from sidelight.detectors._simple_jumper import SimpleJumper, average_log10
from sidelight.detectors._state_parts import STATE_PARTS
from sidelight.detectors._tail_probabilities import load_distributions
from sidelight.detectors._times import Times
from sidelight.detectors._values import Values, values_of
from sidelight.detectors.errors import DetectorError, ParameterError, SampleError, SnapshotError

__all__ = [
    "STATE_PARTS",
    "Answer",
    "CategoricalReference",
    "ChiSquare",
    "Comparison",
    "ConformalRanks",
    "DeploymentMonitor",
    "DetectionSettings",
    "DetectorError",
    "FittedMahalanobis",
    "KolmogorovSmirnov",
    "Look",
    "Mahalanobis",
    "NumericReference",
    "OutlierRate",
    "ParameterError",
    "PopulationStability",
    "Reference",
    "Rows",
    "SampleError",
    "SimpleJumper",
    "SnapshotError",
    "Step",
    "Times",
    "Values",
    "average_log10",
    "load_distributions",
    "values_of",
]
