"""How a job gets to a cluster."""
