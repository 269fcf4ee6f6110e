"""What is read: text, tokens, batches, tasks, needles."""
