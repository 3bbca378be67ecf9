"""A tiny app on stock Flower: the server says what its rounds do, the clients wait."""
