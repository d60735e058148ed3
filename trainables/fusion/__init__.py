"""Classifiers that fuse named modalities, any of which may be absent from a sample."""
