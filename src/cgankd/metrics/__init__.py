"""How good the generated images are, whether they repeat the training images, and what the error bound says."""
