"""Early stopping for several objectives: the policies, and what they rank trials by."""
