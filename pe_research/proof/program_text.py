"""A lowered program as a canonical text of what it computes.

The text is the graph of operations that the results depend on. Names, source positions, unused
values, repeated computation of a value, the order of independent operations and the division into
functions leave no trace in it. Constants, types, operations and the order of operands do.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence

import jax
from jax.extend.mlir import ir

LAYOUT_ONLY = ('sdy.sharding_constraint',)  # returns its operand, laid out over devices


def of(lowered: jax.stages.Lowered, wanted: Callable[[str], bool] = lambda path: True) -> str:
  """The text of a program.

  Args:
    lowered: for one device; lowered with `keep_unused`, or arguments cannot be told apart.
    wanted: whether a result counts, by its path as jax.tree_util.keystr writes it.
  """
  leaves = jax.tree_util.tree_leaves_with_path(lowered.out_info)
  keep = [wanted(jax.tree_util.keystr(path)) for path, _ in leaves]
  module = lowered.compiler_ir('stablehlo')
  with module.context:
    functions = _functions(module)
    region = _Reader(functions).region(functions['main'].regions[0].blocks[0], {}, 0)
    results = [value for value, kept in zip(region.results, keep, strict=True) if kept]
    return _write(dataclasses.replace(region, results=results), {})


@dataclasses.dataclass(eq=False, slots=True)
class _Node:
  """An operation or an argument, in a region of some depth.

  Attributes:
    label: name and attributes of the operation.
    outer: nodes of surrounding regions that its regions use; None until computed.
  """

  label: str
  operands: 'list[_Value]'
  types: list[str]
  depth: int
  regions: 'list[_Region]' = dataclasses.field(default_factory=list)
  outer: 'list[_Node] | None' = None


_Value = tuple[_Node, int]  # one of a node's results


@dataclasses.dataclass(eq=False, slots=True)
class _Region:
  """A graph with arguments and results; `effects` are nodes with side effects."""

  arguments: list[_Node]
  results: list[_Value]
  effects: list[_Node]
  depth: int


class _Reader:
  """Reads operations into a graph, and inlines calls."""

  def __init__(self, functions):
    self.functions = functions

  def region(self, block, values: dict, depth: int) -> _Region:
    arguments = [_Node('', [], [str(a.type)], depth) for a in block.arguments]
    values = values | {v: (node, 0) for v, node in zip(block.arguments, arguments, strict=True)}
    effects: list[_Node] = []
    results = self._block(block, values, depth, effects)
    return _Region(arguments, results, effects, depth)

  def _block(self, block, values: dict, depth: int, effects: list[_Node]) -> list[_Value]:
    for operation in block.operations:
      operation = operation.operation
      operands = [values[value] for value in operation.operands]
      if operation.name in ('func.return', 'stablehlo.return', 'sdy.return'):
        return operands
      values.update(
        zip(operation.results, self._results(operation, operands, values, depth, effects),
            strict=True)
      )  # fmt: skip
    raise ValueError(f'a block ends in {operation.name}, which is no return')

  def _results(self, operation, operands, values, depth: int, effects) -> list[_Value]:
    if operation.name == 'func.call':
      callee = ir.FlatSymbolRefAttr(operation.attributes['callee']).value
      block = self.functions[callee].regions[0].blocks[0]
      return self._block(block, dict(zip(block.arguments, operands, strict=True)), depth, effects)
    if operation.name in LAYOUT_ONLY:
      return operands
    attributes = sorted(_attributes(operation))
    label = operation.name + ''.join(f' {name}={self._inlined(text)}' for name, text in attributes)
    types = [str(value.type) for value in operation.results]
    blocks = [block for region in operation.regions for block in region.blocks]
    regions = [self.region(block, values, depth + 1) for block in blocks]
    node = _Node(label, operands, types, depth, regions)
    if _has_effect(operation):
      effects.append(node)
    return [(node, i) for i in range(len(types))]

  def _inlined(self, attribute: str) -> str:
    """An attribute with functions' names replaced by their texts."""
    return re.sub(r'(?<!")@([\w.$-]+)', lambda match: self._text(match[1]), attribute)

  def _text(self, symbol: str) -> str:
    if symbol not in self.functions:
      return f'@{symbol}'
    return _write(self.region(self.functions[symbol].regions[0].blocks[0], {}, 1), {})


def _functions(module) -> dict:
  operations = [operation.operation for operation in module.body.operations]
  named = [o for o in operations if o.name == 'func.func']
  return {ir.StringAttr(o.attributes['sym_name']).value: o for o in named}


def _attributes(operation) -> Iterator[tuple[str, str]]:
  for attribute in operation.attributes:
    if isinstance(attribute, str):  # from jax 0.12 on
      yield attribute, str(operation.attributes[attribute])
    else:
      yield attribute.name, str(attribute.attr)


def _has_effect(operation) -> bool:
  if operation.name == 'stablehlo.custom_call' and 'has_side_effect' in operation.attributes:
    return ir.BoolAttr(operation.attributes['has_side_effect']).value
  return False


def _write(region: _Region, names: dict[_Node, list[str]]) -> str:
  """A region as lines: arguments, operations each after those that it needs, results."""
  prefix, written, lines, count = f'%{region.depth}.' if region.depth else '%', {}, [], 0

  def new(results: int) -> list[str]:
    nonlocal count
    count += results
    return [f'{prefix}{i}' for i in range(count - results, count)]

  for node in region.arguments:
    names[node] = new(1)
  roots = region.effects + [node for node, _ in region.results]
  for node in _ordered(roots, names):
    text = f'{node.label}({_listed(node.operands, names)}) : {", ".join(node.types)}'
    text += ''.join(_indented(_write(inner, dict(names))) for inner in node.regions)
    if text not in written:
      written[text] = new(len(node.types))
      lines.append(f'{", ".join(written[text])} = {text}')
    names[node] = written[text]
  arguments = [f'{names[node][0]}: {node.types[0]}' for node in region.arguments]
  return '\n'.join([*arguments, *lines, f'return {_listed(region.results, names)}'])


def _listed(values: Sequence[_Value], names) -> str:
  return ', '.join(names[node][i] for node, i in values)


def _indented(text: str) -> str:
  return ' {\n' + ''.join(f'  {line}\n' for line in text.splitlines()) + '}'


def _ordered(roots: Sequence[_Node], names) -> Iterator[_Node]:
  """Unnamed nodes that `roots` depend on, each after its own; iterative, as chains are long."""
  stack = list(reversed(roots))
  while stack:
    node = stack[-1]
    missing = [needed for needed in _needs(node) if needed not in names]
    if node not in names and not missing:
      yield node  # the caller names it
    if missing:
      stack.extend(reversed(missing))
    else:
      stack.pop()


def _needs(node: _Node) -> list[_Node]:
  """Nodes that must be named before a node: its operands, and what its regions use of others."""
  if node.outer is None:
    node.outer = [other for region in node.regions for other in _outer(region)]
  return [operand for operand, _ in node.operands] + node.outer


def _outer(region: _Region) -> list[_Node]:
  """Nodes of surrounding regions that a region uses, in order of first use."""
  outer: dict[_Node, None] = {}
  seen: set[_Node] = set()
  stack = list(reversed(region.effects + [node for node, _ in region.results]))
  while stack:
    node = stack.pop()
    if node.depth < region.depth:
      outer[node] = None
    elif node not in seen:
      seen.add(node)
      stack.extend(reversed(_needs(node)))
  return list(outer)
