"""From the samples of a layout to a data set on disk: checked, split by patient, sharded.

Not called `build`, which linters and ignore files pass over.
"""
