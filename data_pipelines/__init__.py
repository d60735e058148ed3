"""From a published folder of images to shards and streams. Knows nothing of models."""
