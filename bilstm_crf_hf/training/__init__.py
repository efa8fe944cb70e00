"""Arguments, models and trainers."""
