"""Training: arguments, loading of models, trainers and distillation."""
