"""ownstrategy: a Flower app."""
