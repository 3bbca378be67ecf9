"""Heart disease from a dozen routine measurements, learned by hospitals that share no record."""
