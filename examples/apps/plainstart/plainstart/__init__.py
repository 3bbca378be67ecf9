"""plainstart: a Flower app."""
