"""What a search costs until it has the front: problems, ways to search, and their measure."""
