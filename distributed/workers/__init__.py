"""Slots and the workers that train: commands, epochs, evaluations, what they cost."""
