"""Scores, runs and reports."""
