"""The agent at a client's site."""
