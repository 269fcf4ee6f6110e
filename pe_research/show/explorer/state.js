// What the reader has selected: cell (m, n) or channel c at m, and values that all panels share.

const state = {
  modifier: false, length: DATA.tokens, head: 0, m: 9, n: 4, c: 2,
  shared: (({heads, layer, length}) => ({heads, layer, length}))(DATA.schemes[DATA.first[0]].dims),
  wave: {factor: 4, base: Object.values(DATA.schemes).find(({kind}) => kind === 'angles').arguments.base},
};
