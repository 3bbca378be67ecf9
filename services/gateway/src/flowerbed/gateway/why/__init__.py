"""Why is this run not moving? Asked of the gateway's own copy of the events."""
