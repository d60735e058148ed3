"""A look at prepared data before anything is trained: counts, ranges, warnings and pictures."""
