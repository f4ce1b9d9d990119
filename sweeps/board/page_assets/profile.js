// Performance profile (Dolan and Moré 2002): the fraction of problems that an optimizer solves
// within a factor of the best optimizer's steps.
function drawProfile(figure, state, board) {
  const host = figure.querySelector(".plot");
  const tables = board.tasks.map(
    (task) =>
      new Map(
        entriesOf(task.profile).map(([key, value]) => [key, list(value?.ratios).map(number)]),
      ),
  );
  const problems = tables.reduce(
    (sum, table) => sum + Math.max(0, ...[...table.values()].map((ratios) => ratios.length)),
    0,
  );
  const ratios = (entry) =>
    tables
      .flatMap((table) => table.get(entry.optimizer) ?? [])
      .filter((x) => x !== null)
      .sort((a, b) => a - b);
  const found = state
    .drawn()
    .map((entry) => ({ entry, ratios: ratios(entry) }))
    .filter((one) => one.ratios.length);
  caption(
    figure,
    `Fraction of the ${problems} problems (task and horizon) that an optimizer solves within ` +
      "τ times the steps of the best optimizer.",
    "Higher is better. The left edge shows the fraction on which it is the best.",
    "Problems that it did not run count as unsolved.",
    absent(state.drawn().filter((entry) => !found.some((one) => one.entry === entry))),
  );
  if (!found.length) return nothing(host, "These optimizers have no profile.");
  const most = Math.max(1.05, ...found.map((one) => one.ratios.at(-1))) ** 1.04;
  const plot = frame(
    host,
    `Performance profile of ${found.length} optimizers over ${problems} problems`,
    { domain: [1, most], log: true, label: "factor τ of the best", text: factor },
    {
      domain: [0, 1.02],
      label: "fraction of problems",
      ticks: [0, 0.25, 0.5, 0.75, 1],
      text: (x) => percent(x, 0),
    },
    found.map((one) => labelOf(one.entry, host)),
  );
  endLabels(
    plot,
    found.map(({ entry, ratios }, order) => {
      const style = state.style(entry);
      const shift = Math.min(5, found.length - 1 - order); // keeps equal lines apart
      const y = (count) => plot.Y(count / problems) - shift;
      const corners = ratios.flatMap((ratio, i) => [
        [plot.X(ratio), y(i)],
        [plot.X(ratio), y(i + 1)],
      ]);
      const whole = [...corners, [plot.box.right, y(ratios.length)]];
      const group = series(
        plot,
        entry,
        style,
        line(whole, style),
        ratios.map((ratio, i) => marker(style, plot.X(ratio), y(i + 1), 2.8)),
      );
      return { group, x: plot.box.right - 5, y: y(ratios.length), text: labelOf(entry, host) };
    }),
  );
}
