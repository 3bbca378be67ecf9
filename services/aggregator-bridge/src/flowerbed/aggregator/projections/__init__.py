"""The bridge's read models, one a file."""
