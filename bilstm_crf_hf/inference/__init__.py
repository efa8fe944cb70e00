"""Pipelines as predictors, files of texts, ONNX, spaCy, the page."""
