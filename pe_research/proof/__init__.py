"""What shows that two results were computed alike."""
