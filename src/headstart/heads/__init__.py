"""Exact heads on features: solved, not trained; numpy alone."""
