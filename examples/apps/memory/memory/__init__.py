"""memory: a Flower app."""
