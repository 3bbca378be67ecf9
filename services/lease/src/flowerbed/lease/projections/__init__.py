"""Read models of the lease service, one a file."""
