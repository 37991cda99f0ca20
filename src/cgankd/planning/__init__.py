"""A recipe for one's own data: what the images are, how fast networks are here, and which settings fit both."""
