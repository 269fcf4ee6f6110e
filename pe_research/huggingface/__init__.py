"""Checkpoints in the format of Hugging Face, read and written without PyTorch."""
