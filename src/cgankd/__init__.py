"""cgankd: knowledge distillation through conditionally generated images."""

__version__ = "0.1.0"
