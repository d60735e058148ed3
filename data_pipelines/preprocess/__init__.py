"""What happens to a file's content between reader and shard."""

from trustsweep.data_pipelines.preprocess.images import resize_boxes, resize_image, resize_mask

#: Raised whenever the same file would give other values than before; part of the fingerprint.
VERSION = 1

__all__ = ["VERSION", "resize_boxes", "resize_image", "resize_mask"]
