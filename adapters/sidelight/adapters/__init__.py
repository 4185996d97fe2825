"""The outside world behind our protocols: dialects, journals, stores, model clients."""
