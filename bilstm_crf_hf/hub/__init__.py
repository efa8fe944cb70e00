"""Model cards, publishing on the Hub, conversion of the tutorial's checkpoints."""
