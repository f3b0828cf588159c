"""Scores, their intervals and differences, calibration."""
