"""ownloop: a Flower app."""
