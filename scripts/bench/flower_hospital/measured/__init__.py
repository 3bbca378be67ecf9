"""The hospital app on stock Flower, with a clock."""
