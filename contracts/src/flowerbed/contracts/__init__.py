"""What is said: events, FederationSpec, manifests, work orders, subjects."""
