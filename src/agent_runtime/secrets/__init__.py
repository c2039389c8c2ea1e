"""Keep secrets out of all output, and reject weak ones."""
