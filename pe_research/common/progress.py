"""Who is told what a long piece of work begins."""


def unheard(doing: str) -> None:
  """Where nobody listens."""
