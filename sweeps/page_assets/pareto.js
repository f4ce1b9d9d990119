// Speed-up against what it costs, with the front of those that nobody beats on both.
const COSTS = [["relative", "Time"], ["bytes", "Memory"]];
const MOST_NAMED = 40; // of more points, only those that are drawn elsewhere or on the front have a name

function drawPareto(figure, state) {
  const host = figure.querySelector(".plot");
  const timed = state.cost === "relative";
  const found = state.views().filter((view) => view.speedup && (timed ? view.relative > 0 : view.bytes !== null)).map((view) => ({ view, cost: view[state.cost] }));
  const over = state.horizon === null ? "over all rungs (geometric mean)" : `at ${steps(state.horizon)}`;
  caption(figure, `Speed-up ${over} against ${timed ? "the optimizer's own time per step, relative to the baseline's" : "the optimizer's state in bytes per parameter"}.`,
    "The line is the Pareto front: nothing faster costs less. Arrows are bounds. Optimizers that are not drawn elsewhere are grey.");
  if (!found.length) return nothing(host, "No measured costs.");
  const costs = extent(found.map((p) => p.cost));
  const plot = frame(host, `Speed-up against cost, ${found.length} optimizers`,
    { domain: timed ? padded(costs, true, 0.08) : [0, padded([0, costs[1]], false, 0.08)[1]], log: timed, label: timed ? "optimizer time, × baseline" : "state, bytes per parameter", text: timed ? (x) => `${tickText(x)}×` : tickText },
    { domain: padded(extent([1, ...found.map((p) => p.view.speedup.value)]), true, 0.1), log: true, label: "speed-up in patience", text: (x) => `${tickText(x)}×` });
  plot.svg.append(s("line", { class: "unity", x1: plot.box.left, x2: plot.box.right, y1: plot.Y(1), y2: plot.Y(1) }));
  const points = found.map(({ view, cost }) => ({ view, cost, speed: view.speedup.value, x: plot.X(cost), y: plot.Y(view.speedup.value) }));
  const front = paretoFront(points);
  const corners = [...front.flatMap((p, i) => (i ? [[p.x, front[i - 1].y], [p.x, p.y]] : [[p.x, p.y]])), [plot.box.right, front.at(-1).y]];
  plot.svg.append(s("path", { class: "front", d: path(corners) }));
  const weight = (p) => (state.slot(p.view.entry) !== null ? 2 : 0) + (front.includes(p) ? 1 : 0);
  const ordered = points.sort((a, b) => weight(b) - weight(a) || b.speed - a.speed);
  const lines = [...corners.slice(1).map((corner, i) => [corners[i], corner]), [[plot.box.left, plot.Y(1)], [plot.box.right, plot.Y(1)]]];
  const reach = { "=": [5, 5], ">": [15, 5], "<": [5, 15] }; // of the mark, above and below its point
  const texts = ordered.map((p) => (ordered.length <= MOST_NAMED || weight(p) ? labelOf(p.view.entry, host) : null));
  const labels = placeLabels(ordered.map((p, i) => ({ x: p.x, y: p.y, reach: reach[p.view.speedup.bound], text: texts[i] })), lines, plot.box);
  ordered.map((p, i) => [p, labels[i]]).reverse().forEach(([p, label]) => {
    const slot = state.slot(p.view.entry);
    const { bound } = p.view.speedup;
    const group = series(plot, p.view.entry, slot, slot === null ? s("circle", { class: "mark", cx: p.x, cy: p.y, r: 2.6 }) : marker(slot, p.x, p.y, 4));
    if (bound !== "=") group.append(s("path", { class: "arrow", d: `M${p.x},${p.y}v${bound === ">" ? -13 : 13}m-3,${bound === ">" ? 4 : -4}l3,${bound === ">" ? -4 : 4}l3,${bound === ">" ? 4 : -4}` }));
    if (label) group.append(s("text", { class: "name-label", ...label }, labelOf(p.view.entry, host)));
  });
}

// By rising cost, those that are faster than all that cost no more.
function paretoFront(points) {
  let best = -Infinity;
  return [...points].sort((a, b) => a.cost - b.cost || b.speed - a.speed).filter((p) => {
    if (p.speed <= best) return false;
    best = p.speed;
    return true;
  });
}

// A place for each text beside its point that covers no point, no line and no earlier text; null where there is none, or no text. Lines run along the axes.
function placeLabels(points, lines, box) {
  const height = 12;
  const taken = [
    ...points.map(({ x, y, reach }) => [x - 5, y - reach[0], x + 5, y + reach[1]]),
    ...lines.map(([[x, y], [u, v]]) => [Math.min(x, u) - 1, Math.min(y, v) - 1, Math.max(x, u) + 1, Math.max(y, v) + 1]),
  ];
  const free = ([l, t, r, b]) => l >= box.left && r <= box.right && t >= box.top - 8 && b <= box.bottom && !taken.some(([L, T, R, B]) => l < R && r > L && t < B && b > T);
  return points.map(({ x, y, text }) => {
    if (text === null) return null;
    const width = textWidth(text) + 2;
    for (const [dx, dy] of [[-4 - width, -10], [4, 11], [8, 0], [-8 - width, 0], [-width / 2, -14], [-width / 2, 14], [4, -11], [-4 - width, 11]]) {
      const place = [x + dx, y + dy - height / 2, x + dx + width, y + dy + height / 2];
      if (!free(place)) continue;
      taken.push(place);
      return { x: place[0] + 1, y: y + dy + 3.8 };
    }
    return null;
  });
}
