"""oldstyle: A Flower / NumPy app."""
