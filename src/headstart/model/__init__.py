"""Prediction with a saved model."""
