"""Measures of generated images and networks: quality, memorisation, error bound, robustness, cost; statistics."""
