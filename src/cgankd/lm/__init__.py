"""Distillation of language models, apart from the image pipeline: SKD's interleaved sampling, ATKD, baselines.

The models are those of Hugging Face transformers (extra ``[lm]``), which is imported only where it is needed.
"""
