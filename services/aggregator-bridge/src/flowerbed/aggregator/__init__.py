"""Flower's side of the server: strategies, screening, the fold."""
