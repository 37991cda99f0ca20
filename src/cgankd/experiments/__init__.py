"""Experiments of several runs that share artifacts: the paper's tables (students x settings) and ablation figures."""
