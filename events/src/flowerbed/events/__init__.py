"""How events are kept and moved: event store, relay, consumer, projections, service shell."""
