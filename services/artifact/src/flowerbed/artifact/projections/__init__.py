"""The artifact service's read models, one a file."""
