"""What figures are worth: seeds, tests, intervals, fronts of several seeds, optimism."""
