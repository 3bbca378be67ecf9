"""Spans that no process holds from their beginning to their end, made from the events."""
