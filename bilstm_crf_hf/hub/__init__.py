"""Model cards, publishing, the tutorial's checkpoints."""
