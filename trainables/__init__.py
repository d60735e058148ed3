"""Methods, and the axes every method meets: losses, uncertainty, attacks, regimes, metrics."""
