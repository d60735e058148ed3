"""A run folder as one page that opens offline, and the same figures as PNG."""
