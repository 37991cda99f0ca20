"""The conditional generator: networks, losses, augmentation, and how it is trained."""
