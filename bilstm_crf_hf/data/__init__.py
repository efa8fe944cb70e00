"""Corpora, raw text, tokenizers, and their encoding for models."""
