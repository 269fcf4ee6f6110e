"""Callbacks that report what a long computation starts to do."""


def unheard(doing: str) -> None:
  """The callback that reports nothing."""
