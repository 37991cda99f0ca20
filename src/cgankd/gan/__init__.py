"""The conditional generator: networks, losses, augmentation and training."""
