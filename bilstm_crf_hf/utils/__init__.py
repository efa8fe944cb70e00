"""Helpers for files and for facts about the machine."""
