"""The user's door: HTTP status and commands over read models."""
