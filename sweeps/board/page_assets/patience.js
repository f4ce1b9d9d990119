// Patience: the final loss over the horizon. A speed-up is the horizontal way from an optimizer's point to the baseline's curve.
function lossPoints(entry) {
  return entry.rungs.flatMap((rung) => {
    const loss = number(rung.mean?.probe_loss);
    const std = number(rung.std?.probe_loss) ?? 0;
    return loss > 0 ? [{ rung, horizon: rung.horizon, loss, range: [Math.max(loss - std, loss / 2), loss + std] }] : []; // above zero, on a log axis
  });
}

function drawPatience(figure, state) {
  const host = figure.querySelector(".plot");
  const found = state.drawn().map((entry) => ({ entry, points: lossPoints(entry) })).filter((one) => one.points.length);
  caption(figure, "Final probe loss of each horizon, every point a full training run with its own schedule (± one standard deviation over seeds).",
    "Arrows: the speed-up, from the optimizer's point to where the baseline's interpolated curve reaches the same loss; a dashed arrow is a bound.",
    absent(state.drawn().filter((entry) => !found.some((one) => one.entry === entry))));
  if (!found.length) return nothing(host, "No final losses of these optimizers.");
  const pointed = state.pointed();
  const reach = (pointed ? lossPoints(pointed) : []).flatMap(({ rung, horizon, loss }) => {
    const speedup = speedupOf(rung.speedup);
    return speedup ? [{ horizon, loss, speedup, to: horizon * speedup.value }] : [];
  });
  const points = found.flatMap((one) => one.points);
  const rungs = [...new Set(points.map((p) => p.horizon))].sort((a, b) => a - b);
  const plot = frame(host, `Final probe loss against horizon, ${found.length} optimizers`,
    { domain: padded(extent([...rungs, ...reach.map((r) => r.to)]), true, 0.04), log: true, label: "horizon in steps", ticks: rungs },
    { domain: padded(extent(points.flatMap((p) => p.range)), true, 0.09), log: true, label: "final probe loss" },
    found.map((one) => labelOf(one.entry, host)));
  const ends = found.map(({ entry, points }) => {
    const slot = state.slot(entry);
    const at = points.map((p) => [plot.X(p.horizon), plot.Y(p.loss)]);
    const bars = points.map((p) => s("path", { class: "error", d: `M${plot.X(p.horizon)},${plot.Y(p.range[0])}V${plot.Y(p.range[1])}` }));
    const group = series(plot, entry, slot, bars, line(at, slot), at.map(([x, y]) => marker(slot, x, y)));
    return { group, x: at.at(-1)[0], y: at.at(-1)[1], text: labelOf(entry, host) };
  });
  endLabels(plot, ends);
  if (reach.length) series(plot, pointed, state.slot(pointed), reach.map((one) => speedupArrow(plot, one))).classList.add("arrows");
}

function speedupArrow(plot, { horizon, loss, speedup, to }) {
  const [x, y] = [plot.X(horizon), plot.Y(loss)];
  const length = plot.X(to) - x;
  if (Math.abs(length) < 7) return s("text", { class: "arrow-text", x, y: y + 18, "text-anchor": "middle" }, speedText(speedup));
  const gap = 5 * Math.sign(length);
  return [
    s("path", { class: speedup.bound === "=" ? "arrow" : "arrow bound", d: `M${x + gap},${y}h${length - gap}` }),
    s("path", { class: "arrow", d: arrow(x + length - gap, y, gap) }),
    s("text", { class: "arrow-text", x: x + length / 2, y: y - 6, "text-anchor": "middle" }, speedText(speedup)),
  ];
}
