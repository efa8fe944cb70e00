"""Tasks, metrics, run folders, comparison and analysis of models."""
