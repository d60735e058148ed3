"""Comparing methods fairly: cross-validated, equally tuned, tested over folds and by patient."""
