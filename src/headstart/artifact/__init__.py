"""Saved models: one folder, verified on opening."""
