"""Evidence: metrics, intervals, calibration, and what they add up to."""
