"""GraphQL over the read models that REST answers from: queries, commands, and the feed."""
