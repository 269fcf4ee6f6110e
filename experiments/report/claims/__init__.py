"""The claims with their verdicts: a page, Markdown and a picture."""
