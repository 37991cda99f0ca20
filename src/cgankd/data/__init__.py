"""Images and labels: the container, the sources of data, splits, and training batches."""
