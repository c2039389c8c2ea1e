"""Chat models: how a template's model is created, and models that need no network."""
