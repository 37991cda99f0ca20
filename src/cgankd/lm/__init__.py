"""Distilling language models, apart from the road of images: SKD's interleaved sampling, ATKD on tokens, baselines.

Its models are Hugging Face transformers' (extra ``[lm]``); nothing of it is imported where they are not needed.
"""
