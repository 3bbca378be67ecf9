"""A model of any size and no data set, for measuring a network and a site before the real app."""
