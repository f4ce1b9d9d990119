// Convergence: a loss by step, its mean over seeds and a band from the lowest to the highest seed.
const GAP = "gap";
const TRAINING = "train_loss";
const CURVES = [
  [TRAINING, "Training loss"],
  ["probe_loss", "Probe loss"],
  ["heldout_kl", "Held-out KL"],
  [GAP, "Generalization gap"],
];

// The metric's mean and range over seeds at each step; null if the data has no such curve.
function curveOf(rung, metric) {
  const rows = (key) => list(rung?.curve?.[key]).map(list);
  const probe = rows("probe_loss");
  const values =
    metric === GAP
      ? rows("heldout_kl").map((row, seed) =>
          row.map((x, i) =>
            number(x) === null || number(probe[seed]?.[i]) === null ? null : x - probe[seed][i],
          ),
        )
      : rows(metric);
  const logarithmic = metric !== GAP;
  const points = list(rung?.curve?.[metric === TRAINING ? "train_steps" : "steps"]).flatMap(
    (step, i) => {
      const here = values
        .map((row) => number(row[i]))
        .filter((x) => x !== null && (x > 0 || !logarithmic));
      return step > 0 && here.length ? [{ step, mean: average(here), range: extent(here) }] : [];
    },
  );
  return points.length ? points : null;
}

function drawConvergence(figure, state) {
  const host = figure.querySelector(".plot");
  const horizon = state.figureHorizon();
  const log = state.metric !== GAP;
  const label = CURVES.find(([key]) => key === state.metric)[1];
  const found = state
    .drawn()
    .map((entry) => ({ entry, points: curveOf(rungAt(entry, horizon), state.metric) }))
    .filter((one) => one.points);
  const missing = state.drawn().filter((entry) => !found.some((one) => one.entry === entry));
  caption(
    figure,
    `${label} by step, in runs of ${steps(horizon ?? 0)}: mean and range over seeds.`,
    log
      ? "Both axes are logarithmic."
      : "The gap is held-out KL minus probe loss. The step axis is logarithmic.",
    absent(missing),
  );
  if (!found.length) return nothing(host, "These optimizers have no curves at this horizon.");
  const points = found.flatMap((one) => one.points);
  const plot = frame(
    host,
    `${label} by step, ${found.length} optimizers, ${steps(horizon)}`,
    { domain: extent(points.map((p) => p.step)), log: true, label: "step" },
    {
      domain: padded(extent(points.flatMap((p) => p.range)), log, 0.03),
      log,
      label: label.toLowerCase().replace("kl", "KL"),
    },
    found.map((one) => labelOf(one.entry, host)),
  );
  const ends = found.map(({ entry, points }, order) => {
    const style = state.style(entry);
    const at = (value) => points.map((p) => [plot.X(p.step), plot.Y(value(p))]);
    const band = `${path([...at((p) => p.range[1]), ...at((p) => p.range[0]).reverse()])}Z`;
    const mean = at((p) => p.mean);
    const marks = spaced(mean, 110, 20 + (110 * order) / found.length).map(([x, y]) =>
      marker(style, x, y, 3),
    );
    const group = series(
      plot,
      entry,
      style,
      s("path", { class: "band", d: band }),
      line(mean, style),
      marks,
    );
    const [x, y] = mean.at(-1);
    return { group, x, y, text: labelOf(entry, host) };
  });
  endLabels(plot, ends);
}

// Points about `gap` pixels apart, the first at `offset`, so that markers of lines do not overlap.
function spaced(points, gap, offset) {
  let next = points[0][0] + offset;
  return points.filter(([x]) => {
    if (x < next) return false;
    next = x + gap;
    return true;
  });
}

function caption(figure, title, ...rest) {
  figure
    .querySelector("figcaption")
    .replaceChildren(h("b", {}, title), ...rest.filter(Boolean).map((text) => ` ${text}`));
}

function absent(entries) {
  const named = entries
    .slice(0, 5)
    .map((entry) => short(entry.optimizer, 30))
    .join(", ");
  return entries.length
    ? `No data here for ${named}${entries.length > 5 ? ` and ${entries.length - 5} more` : ""}.`
    : null;
}
