"""queries: a Flower app."""
