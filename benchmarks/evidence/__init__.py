"""What benchmarks/evidential.py compares, computes, tests and writes."""
