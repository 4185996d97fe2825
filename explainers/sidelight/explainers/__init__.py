"""Shapley values, and the broker through which every explainer calls a live model."""
