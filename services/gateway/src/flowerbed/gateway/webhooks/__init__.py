"""Signed webhooks: the feed, sent to whoever asked for it, each with a cursor of its own."""
