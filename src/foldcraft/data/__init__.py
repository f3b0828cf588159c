"""A competition from its tables to batches of images: targets, folds, decoding, cache, augmentation."""
