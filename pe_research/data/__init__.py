"""Training and validation data: corpora, tokenizers, batches, tasks, needles."""
