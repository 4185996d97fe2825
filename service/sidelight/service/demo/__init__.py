"""Material of the demo: the flights of 2013, a model, its server, the traffic and the summary."""

from sidelight.service.demo._flights import (
    FEATURES,
    WORDS,
    data_folder,
    load_flights,
    reference_rows,
    stream_rows,
    training_rows,
)
from sidelight.service.demo._http_client import HttpClient, Unanswered
from sidelight.service.demo._inference_protocol import DATATYPES, MODEL_NAME, MODEL_VERSION, OUTPUTS
from sidelight.service.demo._labels import LabelFeed, labels_for
from sidelight.service.demo._model_process import ModelFacts, ModelProcess
from sidelight.service.demo._ranking import area_under_curve
from sidelight.service.demo._reference import ask_model, write_reference
from sidelight.service.demo._season import Shift, control_rows, tell_shifts, yardstick
from sidelight.service.demo._story import (
    AlarmStory,
    ExplainedFlight,
    flight_day,
    tell_alarm,
    tell_explanation,
)
from sidelight.service.demo._stream import FlightRequest, FlightStream, date_of
from sidelight.service.demo._summary import DemoNumbers, Outlier, json_line, print_summary
from sidelight.service.demo._traffic import Traffic, TrafficReport, flight_to_explain, stream_auc
from sidelight.service.demo.errors import DemoDataMissing, DemoError, InferError, ModelNotReady

# The model and its server are not here: they need scikit-learn, and live in a process of their own.
__all__ = [
    "DATATYPES",
    "FEATURES",
    "MODEL_NAME",
    "MODEL_VERSION",
    "OUTPUTS",
    "WORDS",
    "AlarmStory",
    "DemoDataMissing",
    "DemoError",
    "DemoNumbers",
    "ExplainedFlight",
    "FlightRequest",
    "FlightStream",
    "HttpClient",
    "InferError",
    "LabelFeed",
    "ModelFacts",
    "ModelNotReady",
    "ModelProcess",
    "Outlier",
    "Shift",
    "Traffic",
    "TrafficReport",
    "Unanswered",
    "area_under_curve",
    "ask_model",
    "control_rows",
    "data_folder",
    "date_of",
    "flight_day",
    "flight_to_explain",
    "json_line",
    "labels_for",
    "load_flights",
    "print_summary",
    "reference_rows",
    "stream_auc",
    "stream_rows",
    "tell_alarm",
    "tell_explanation",
    "tell_shifts",
    "training_rows",
    "write_reference",
    "yardstick",
]
