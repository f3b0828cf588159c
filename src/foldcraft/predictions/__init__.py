"""An experiment and what it predicts: test-time augmentation, inference, frozen features, linear probes, OOF."""
