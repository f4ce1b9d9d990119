// Convergence: a loss by step, its mean over seeds and a band from the lowest to the highest seed.
const [TRAINING, PROBE] = ["train_loss", "probe_loss"];
const CURVES = [
  [PROBE, "Probe loss"],
  [TRAINING, "Training loss"],
];

// The metric's mean and range over seeds at each step; null if the data has no such curve.
function curveOf(rung, metric) {
  const values = list(rung?.curve?.[metric]).map(list);
  const points = list(rung?.curve?.[metric === TRAINING ? "train_steps" : "steps"]).flatMap(
    (step, i) => {
      const here = values
        .map((row) => number(row[i]))
        .filter((x) => x !== null && x > 0);
      return step > 0 && here.length ? [{ step, mean: average(here), range: extent(here) }] : [];
    },
  );
  return points.length ? points : null;
}

function drawConvergence(figure, state) {
  const host = figure.querySelector(".plot");
  const horizon = state.figureHorizon();
  const label = CURVES.find(([key]) => key === state.metric)[1];
  const found = state
    .drawn()
    .map((entry) => ({ entry, points: curveOf(rungAt(entry, horizon), state.metric) }))
    .filter((one) => one.points);
  const missing = state.drawn().filter((entry) => !found.some((one) => one.entry === entry));
  caption(
    figure,
    `${label} by step, in runs of ${steps(horizon ?? 0)}: mean and range over seeds.`,
    state.metric === TRAINING ? null : "A few probe views, always the same, stand for all.",
    "Both axes are logarithmic.",
    absent(missing),
  );
  if (!found.length) return nothing(host, "These optimizers have no curves at this horizon.");
  const points = found.flatMap((one) => one.points);
  const plot = frame(
    host,
    `${label} by step, ${found.length} optimizers, ${steps(horizon)}`,
    { domain: extent(points.map((p) => p.step)), log: true, label: "step" },
    {
      domain: padded(extent(points.flatMap((p) => p.range)), true, 0.03),
      log: true,
      label: label.toLowerCase(),
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
  readable(
    plot,
    found.flatMap(({ entry, points }) =>
      points.map(({ step, mean, range }) => ({
        x: plot.X(step),
        y: plot.Y(mean),
        text:
          `${short(entry.optimizer, 40)} at step ${step.toLocaleString("en")}: ${valueText(mean)} ` +
          `(${range.map(valueText).join(" to ")})`,
      })),
    ),
  );
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
