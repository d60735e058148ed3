"""Statistics: tests over seeds, confidence intervals, fronts and attainment surfaces."""
