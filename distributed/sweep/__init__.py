"""A whole sweep: its plan, the job, what happens beside the trials, the test evaluation."""
