// Speed-up by cost, with the Pareto front.
const COSTS = [
  ["step_time", "Time"],
  ["bytes", "Memory"],
];
const MAX_NAMED = 40; // beyond this, only chosen optimizers and the front are named

function drawPareto(figure, state) {
  const host = figure.querySelector(".plot");
  const timed = state.cost === "step_time";
  const measured = (view) => (timed ? view.step_time > 0 : view.bytes !== null);
  const found = state
    .views()
    .filter((view) => view.speedup && measured(view))
    .map((view) => ({ view, cost: view[state.cost] }));
  const over =
    state.horizon === null
      ? "overall (all horizons together)"
      : `at ${steps(state.horizon)}`;
  const price = timed
    ? "the time of a whole step, relative to the baseline's"
    : "the size of the optimizer state in bytes per parameter";
  caption(
    figure,
    `Speed-up ${over} against ${price}.`,
    "The line is the Pareto front: no optimizer is better in both speed-up and cost.",
    "Arrows mark bounds. Grey optimizers are not selected for the other figures.",
  );
  if (!found.length) return nothing(host, "No costs were measured.");
  const costs = extent(found.map((p) => p.cost));
  const plot = frame(
    host,
    `Speed-up by cost, ${found.length} optimizers`,
    timed
      ? {
          domain: padded(costs, true, 0.08),
          log: true,
          label: "time of a step, × baseline",
          text: factor,
        }
      : { domain: [0, padded([0, costs[1]], false, 0.08)[1]], label: "state, bytes per parameter" },
    {
      domain: padded(extent([1, ...found.map((p) => p.view.speedup.value)]), true, 0.1),
      log: true,
      label: "speed-up",
      text: factor,
    },
  );
  plot.svg.append(
    s("line", {
      class: "unity",
      x1: plot.box.left,
      x2: plot.box.right,
      y1: plot.Y(1),
      y2: plot.Y(1),
    }),
  );
  const points = found.map(({ view, cost }) => ({
    view,
    cost,
    speed: view.speedup.value,
    x: plot.X(cost),
    y: plot.Y(view.speedup.value),
  }));
  const front = paretoFront(points);
  const corners = [
    ...front.flatMap((p, i) =>
      i
        ? [
            [p.x, front[i - 1].y],
            [p.x, p.y],
          ]
        : [[p.x, p.y]],
    ),
    [plot.box.right, front.at(-1).y],
  ];
  plot.svg.append(s("path", { class: "front", d: path(corners) }));
  const weight = (p) => (state.style(p.view.entry) !== null ? 2 : 0) + (front.includes(p) ? 1 : 0);
  const ordered = points.sort((a, b) => weight(b) - weight(a) || b.speed - a.speed);
  const lines = [
    ...corners.slice(1).map((corner, i) => [corners[i], corner]),
    [
      [plot.box.left, plot.Y(1)],
      [plot.box.right, plot.Y(1)],
    ],
  ];
  const reach = { "=": [5, 5], ">": [15, 5], "<": [5, 15] }; // pixels above and below the point
  const texts = ordered.map((p) =>
    ordered.length <= MAX_NAMED || weight(p) ? labelOf(p.view.entry, host) : null,
  );
  const labels = placeLabels(
    ordered.map((p, i) => ({ x: p.x, y: p.y, reach: reach[p.view.speedup.bound], text: texts[i] })),
    lines,
    plot.box,
  );
  ordered
    .map((p, i) => [p, labels[i]])
    .reverse()
    .forEach(([p, label]) => {
      const style = state.style(p.view.entry);
      const { bound } = p.view.speedup;
      const group = series(
        plot,
        p.view.entry,
        style,
        style === null
          ? s("circle", { class: "mark", cx: p.x, cy: p.y, r: 2.6 })
          : marker(style, p.x, p.y, 4),
      );
      const up = bound === ">" ? -1 : 1;
      if (bound !== "=")
        group.append(
          s("path", {
            class: "arrow",
            d: `M${p.x},${p.y}v${13 * up}m-3,${-4 * up}l3,${4 * up}l3,${-4 * up}`,
          }),
        );
      if (label)
        group.append(
          s("text", { class: "name-label haloed", ...label }, labelOf(p.view.entry, host)),
        );
    });
  readable(
    plot,
    points.map((p) => ({ x: p.x, y: p.y, text: costText(p, timed) })),
  );
}

// The text shown at a point.
function costText({ view, cost }, timed) {
  const price = timed ? `a step takes ${times(cost)}` : `${cost.toFixed(1)} bytes per parameter`;
  return `${short(view.entry.optimizer, 40)}: ${speedText(view.speedup)}; ${price}`;
}

// The points, by ascending cost, that are faster than all points that cost no more.
function paretoFront(points) {
  let best = -Infinity;
  return [...points]
    .sort((a, b) => a.cost - b.cost || b.speed - a.speed)
    .filter((p) => {
      if (p.speed <= best) return false;
      best = p.speed;
      return true;
    });
}

// A place for each text beside its point. It covers no point, no earlier text and, if possible, no
// line; null if there is no such place.
// Points are {x, y, reach: [above, below], text}; texts may cover points whose text is null. Lines
// are parallel to the axes.
function placeLabels(points, lines, box) {
  const height = 12;
  const taken = points
    .filter((p) => p.text !== null)
    .map(({ x, y, reach }) => [x - 5, y - reach[0], x + 5, y + reach[1]]);
  const drawn = lines.map(([[x, y], [u, v]]) => [
    Math.min(x, u) - 1,
    Math.min(y, v) - 1,
    Math.max(x, u) + 1,
    Math.max(y, v) + 1,
  ]);
  const inside = ([l, t, r, b]) =>
    l >= box.left && r <= box.right && t >= box.top - 18 && b <= box.bottom;
  const clear = ([l, t, r, b], others) =>
    !others.some(([L, T, R, B]) => l < R && r > L && t < B && b > T);
  return points.map(({ x, y, reach, text }) => {
    if (text === null) return null;
    const width = textWidth(text) + 2;
    const [above, below] = [-reach[0] - 6, reach[1] + 6];
    const offsets = [
      [-4 - width, -10],
      [4, 11],
      [8, 0],
      [-8 - width, 0],
      [-width / 2, above],
      [-width / 2, below],
      [5, -11],
      [-5 - width, 11],
    ];
    const boxes = offsets.map(([dx, dy]) => [
      x + dx,
      y + dy - height / 2,
      x + dx + width,
      y + dy + height / 2,
    ]);
    const places = boxes.filter((place) => inside(place) && clear(place, taken));
    const place = places.find((one) => clear(one, drawn)) ?? places[0];
    if (!place) return null;
    taken.push(place);
    return { x: place[0] + 1, y: place[1] + height / 2 + 3.8 };
  });
}
