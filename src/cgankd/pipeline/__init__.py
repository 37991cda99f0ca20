"""A run: the stages, and the road through them in ``run.py``."""
