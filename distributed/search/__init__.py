"""Sampling and early stopping of a sweep, on Optuna and Ray Tune."""
