"""Handwritten digits, dealt to as many nodes as there are."""
