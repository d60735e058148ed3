"""The command line, and what it prints beside a sweep."""
