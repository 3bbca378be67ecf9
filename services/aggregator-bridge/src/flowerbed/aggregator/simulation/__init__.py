"""Virtual clients: a process of its own for each federation, in which Ray runs the ClientApp."""
