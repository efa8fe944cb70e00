"""The page to try a model, and a Space as it stands."""
