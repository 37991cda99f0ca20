"""From a generator to the images a student sees: density ratio, subsampling, filter, replacement, store."""
