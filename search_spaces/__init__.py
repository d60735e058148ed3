"""What may vary, per trainable, and the study file. Imports neither torch nor ray."""
