"""Who may work: enrolment, leases, signed work, heartbeats."""
