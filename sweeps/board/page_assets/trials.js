// Tuning at the shortest horizon: the loss of every trial by learning rate, and the best loss to
// expect from k trials. Only there are trials spread over the whole space; at longer horizons a
// search stays where losses are low, which shows nothing about the rest.
const MANY = 24; // trials; beyond this they are points without a line
const WHERE = "the shortest horizon, the only one at which trials are spread over the whole space";

const shortest = (state) =>
  horizonsOf(state.drawn().length ? state.drawn() : state.entries())[0] ?? null;

function triedOf(rung) {
  return list(rung?.tried)
    .flatMap((trial) => {
      const lr = number(trial?.hparams?.lr);
      return lr > 0
        ? [
            {
              lr,
              loss: trial.status === "ok" ? number(trial.probe_loss) : null,
              status: trial.status,
            },
          ]
        : [];
    })
    .sort((a, b) => a.lr - b.lr);
}

function drawSensitivity(figure, state) {
  const host = figure.querySelector(".plot");
  const horizon = shortest(state);
  const found = state
    .drawn()
    .map((entry) => ({ entry, tried: triedOf(rungAt(entry, horizon)) }))
    .filter((one) => one.tried.some((t) => t.loss > 0));
  const tolerant = found.flatMap(({ entry }) => {
    const { within, typical } = rungAt(entry, horizon).sensitivity ?? {};
    return number(within) === null
      ? []
      : [`${short(entry.optimizer, 30)} ${percent(within, 0)} (${times(number(typical))})`];
  });
  caption(
    figure,
    `Probe loss of the tuning trials at ${steps(horizon ?? 0)}, by learning rate.`,
    `This is ${WHERE}.`,
    "Other hyperparameters vary too. × marks a trial that diverged, crashed or timed out.",
    tolerant.length
      ? "Of the spread trials, share within 10% of the best loss (median loss relative to it): " +
          `${tolerant.join(", ")}.`
      : null,
    absent(state.drawn().filter((entry) => !found.some((one) => one.entry === entry))),
  );
  if (!found.length)
    return nothing(host, "These optimizers have no tuning trials with a learning rate.");
  const all = found.flatMap((one) => one.tried);
  const plot = frame(
    host,
    `Loss of tuning trials by learning rate, ${found.length} optimizers`,
    { domain: padded(extent(all.map((t) => t.lr)), true), log: true, label: "learning rate" },
    {
      domain: padded(extent(all.map((t) => t.loss).filter((x) => x > 0)), true),
      log: true,
      label: "probe loss, tuning trials",
    },
    found.map((one) => labelOf(one.entry, host)),
  );
  const ends = found.map(({ entry, tried }) => {
    const style = state.style(entry);
    const good = tried.filter((t) => t.loss > 0).map((t) => [plot.X(t.lr), plot.Y(t.loss)]);
    const lost = tried
      .filter((t) => !(t.loss > 0))
      .map((t) =>
        s(
          "path",
          { class: "lost", d: saltire(plot.X(t.lr), plot.box.top - 9) },
          s("title", {}, `${short(entry.optimizer, 30)}: ${plain(t.status)}`),
        ),
      );
    const best = good.reduce((a, b) => (b[1] > a[1] ? b : a));
    const ring = s("circle", { class: "best", cx: best[0], cy: best[1], r: 7 });
    const group = series(
      plot,
      entry,
      style,
      good.length > MANY ? null : line(good, style),
      good.map(([x, y]) => marker(style, x, y, good.length > MANY ? 2 : 3)),
      ring,
      lost,
    );
    return { group, x: good.at(-1)[0], y: good.at(-1)[1], text: labelOf(entry, host) };
  });
  if (all.some((t) => !(t.loss > 0)))
    plot.svg.append(
      s("path", {
        class: "edge-line",
        d: `M${plot.box.left},${plot.box.top - 3}H${plot.box.right}`,
      }),
    );
  endLabels(plot, ends);
}

const saltire = (x, y) => `M${x - 3},${y - 3}l6,6m0,-6l-6,6`;

function drawBestAfter(figure, state) {
  const host = figure.querySelector(".plot");
  const horizon = shortest(state);
  const values = (entry) =>
    list(rungAt(entry, horizon)?.best_after).flatMap((x, i) => (number(x) > 0 ? [[i + 1, x]] : []));
  const found = state
    .drawn()
    .map((entry) => ({ entry, points: values(entry) }))
    .filter((one) => one.points.length);
  caption(
    figure,
    `Expected lowest probe loss after k tuning trials at ${steps(horizon ?? 0)}.`,
    `This is ${WHERE}. It shows how much of a result is due to the tuning budget.`,
    absent(state.drawn().filter((entry) => !found.some((one) => one.entry === entry))),
  );
  if (!found.length) return nothing(host, "These optimizers have no trials that are spread.");
  const points = found.flatMap((one) => one.points);
  const last = Math.max(...points.map(([k]) => k));
  const plot = frame(
    host,
    `Expected best loss after k trials, ${found.length} optimizers`,
    {
      domain: [1, Math.max(last, 2)],
      label: "trials k",
      ticks: ticks([1, Math.max(last, 2)], false, 9).filter(Number.isInteger),
    },
    {
      domain: padded(extent(points.map(([, x]) => x)), true),
      log: true,
      label: "expected best probe loss",
    },
    found.map((one) => labelOf(one.entry, host)),
  );
  endLabels(
    plot,
    found.map(({ entry, points }) => {
      const style = state.style(entry);
      const at = points.map(([k, x]) => [plot.X(k), plot.Y(x)]);
      const group = series(
        plot,
        entry,
        style,
        line(at, style),
        (at.length > MANY ? spaced(at, 40, 0) : at).map(([x, y]) => marker(style, x, y, 2.8)),
      );
      return { group, x: at.at(-1)[0], y: at.at(-1)[1], text: labelOf(entry, host) };
    }),
  );
}
