"""Drift and outlier statistics: streaming, mergeable, calibrated."""
