"""ownpace: a Flower app."""
