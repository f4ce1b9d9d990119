// The final loss by horizon. A speed-up is the horizontal distance from an optimizer's point to the
// baseline's curve.
function lossPoints(entry) {
  return entry.rungs.flatMap((rung) => {
    const loss = number(rung.mean?.probe_loss);
    const std = number(rung.std?.probe_loss) ?? 0;
    // The lower end stays above zero, for the logarithmic axis.
    return loss > 0
      ? [{ rung, horizon: rung.horizon, loss, range: [Math.max(loss - std, loss / 2), loss + std] }]
      : [];
  });
}

function drawPatience(figure, state) {
  const host = figure.querySelector(".plot");
  const found = state
    .drawn()
    .map((entry) => ({ entry, points: lossPoints(entry) }))
    .filter((one) => one.points.length);
  caption(
    figure,
    "Final probe loss by horizon.",
    "Each point is the mean of full training runs with a schedule for that horizon;",
    "bars show ± one standard deviation over seeds.",
    "Arrows show the speed-up: each runs from the optimizer's point to the baseline's curve at the",
    "same loss. A dashed arrow is a bound.",
    absent(state.drawn().filter((entry) => !found.some((one) => one.entry === entry))),
  );
  if (!found.length) return nothing(host, "These optimizers have no final losses.");
  const arrowEntry = state.arrowEntry();
  const reach = (arrowEntry ? lossPoints(arrowEntry) : []).flatMap(({ rung, horizon, loss }) => {
    const speedup = speedupOf(rung.speedup);
    return speedup ? [{ horizon, loss, speedup, to: horizon * speedup.value }] : [];
  });
  const points = found.flatMap((one) => one.points);
  const rungs = [...new Set(points.map((p) => p.horizon))].sort((a, b) => a - b);
  const plot = frame(
    host,
    `Final probe loss by horizon, ${found.length} optimizers`,
    {
      domain: padded(extent([...rungs, ...reach.map((r) => r.to)]), true, 0.04),
      log: true,
      label: "horizon in steps",
      ticks: rungs,
    },
    {
      domain: padded(extent(points.flatMap((p) => p.range)), true, 0.09),
      log: true,
      label: "final probe loss",
    },
    found.map((one) => labelOf(one.entry, host)),
  );
  const ends = found.map(({ entry, points }) => {
    const style = state.style(entry);
    const at = points.map((p) => [plot.X(p.horizon), plot.Y(p.loss)]);
    const bars = points.map((p) =>
      s("path", {
        class: "error",
        d: `M${plot.X(p.horizon)},${plot.Y(p.range[0])}V${plot.Y(p.range[1])}`,
      }),
    );
    const group = series(
      plot,
      entry,
      style,
      bars,
      line(at, style),
      at.map(([x, y]) => marker(style, x, y)),
    );
    return { group, x: at.at(-1)[0], y: at.at(-1)[1], text: labelOf(entry, host) };
  });
  endLabels(plot, ends);
  readable(
    plot,
    found.flatMap(({ entry, points }) =>
      points.map(({ rung, horizon, loss }) => ({
        x: plot.X(horizon),
        y: plot.Y(loss),
        text:
          `${short(entry.optimizer, 40)} at ${steps(horizon)}: ${valueText(loss)}` +
          ` ± ${valueText(number(rung.std?.probe_loss))}, ${speedText(speedupOf(rung.speedup))}`,
      })),
    ),
  );
  if (reach.length)
    series(
      plot,
      arrowEntry,
      state.style(arrowEntry),
      reach.map((one) => speedupArrow(plot, one)),
    ).classList.add("arrows");
}

function speedupArrow(plot, { horizon, loss, speedup, to }) {
  const [x, y] = [plot.X(horizon), plot.Y(loss)];
  const length = plot.X(to) - x;
  if (Math.abs(length) < 7)
    return s(
      "text",
      { class: "arrow-text", x, y: y + 18, "text-anchor": "middle" },
      speedText(speedup),
    );
  const gap = 5 * Math.sign(length);
  return [
    s("path", {
      class: speedup.bound === "=" ? "arrow" : "arrow bound",
      d: `M${x + gap},${y}h${length - gap}`,
    }),
    s("path", { class: "arrow", d: arrow(x + length - gap, y, gap) }),
    s(
      "text",
      { class: "arrow-text", x: x + length / 2, y: y - 6, "text-anchor": "middle" },
      speedText(speedup),
    ),
  ];
}
