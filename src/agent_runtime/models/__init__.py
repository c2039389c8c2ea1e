"""Build the model of a template, and answer without a network."""
