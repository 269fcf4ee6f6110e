"""Checkpoints in Hugging Face's format, read and written without PyTorch."""
