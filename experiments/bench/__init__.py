"""Speed: of this project, and beside what a PyTorch user would run."""
