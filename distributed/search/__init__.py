"""What a sweep tries next, and what it stops: Optuna and Ray Tune stand behind this."""
