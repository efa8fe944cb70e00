"""Web page to try a model, which is also a Space."""
