"""Images and labels: the container, the sources they come from, and the batches networks are trained on."""
