// Where the dots and lines of the lineage graph go, as in the log of a version control system. Pure.
//
// Rows come newest first. A lane is a line that still looks for its parent further down.

export function lanes(nodes) {
  const known = new Set(nodes.map((one) => one.sha256));
  let open = []; // the sha256 that each lane leads down to
  return nodes.map((node, place) => {
    const mine = open.map((wanted, lane) => (wanted === node.sha256 ? lane : -1)).filter((lane) => lane >= 0);
    const lane = mine.length ? mine[0] : free(open);
    const through = open.map((wanted, at) => (wanted && wanted !== node.sha256 ? at : -1)).filter((at) => at >= 0);
    const next = open.map((wanted) => (wanted === node.sha256 ? null : wanted));
    const below = [];
    const following = nodes[place + 1]?.sha256;
    for (const parent of node.parents) {
      // A parent that is not drawn is past the gap: the line goes on to what is drawn next.
      const wanted = known.has(parent) ? parent : following;
      if (!wanted) continue;
      const held = next.indexOf(wanted);
      const at = held >= 0 ? held : next[lane] == null ? lane : free(next);
      next[at] = wanted;
      below.push(at);
    }
    const width = Math.max(open.length, next.length, lane + 1);
    const row = { node, lane, above: mine, below, through: through.filter((at) => next[at]), width };
    while (next.length && next.at(-1) == null) next.pop();
    open = next;
    return row;
  });
}

function free(open) {
  const hole = open.findIndex((wanted) => wanted == null);
  return hole >= 0 ? hole : open.length;
}
