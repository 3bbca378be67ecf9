"""The brain: federations and rounds, their deadlines and attempts."""
