"""From a generator to the student's images: density ratio, subsampling, filter, label replacement, storage."""
