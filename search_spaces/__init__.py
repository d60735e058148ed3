"""What may vary, per method, and the study file. Imports neither torch nor ray."""
