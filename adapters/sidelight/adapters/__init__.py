"""The outside world behind our protocols: dialects, journals, stores, model clients."""

from sidelight.adapters._decoding import Decoder, Decoding

__all__ = [
    "Decoder",
    "Decoding",
]
