"""Features of frozen networks: compiled once, run once per item, kept by content."""

from headstart.features.compile import compile_prefix
from headstart.features.extract import extract
from headstart.features.table import FeatureTable

__all__ = ["FeatureTable", "compile_prefix", "extract"]
