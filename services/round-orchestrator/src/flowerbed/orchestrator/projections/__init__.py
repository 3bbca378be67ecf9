"""Read models of the orchestrator, one a file."""
