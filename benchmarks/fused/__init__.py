"""Parts of benchmarks/fusion.py."""
