// The table: one row for each entry, sortable by every column. A row opens to show its details.
const WHISKER = { width: 112, height: 18, pad: 9 };
const VERDICTS = new Map([
  ["reproduced", "✓ reproduced"],
  ["failed", "✗ failed"],
]);
const collator = new Intl.Collator("en", { numeric: true });

const COLUMNS = [
  {
    key: "rank",
    label: "Rank",
    first: "ascending",
    value: (v) => v.rank,
    cell: (v) => (v.rank === null ? NONE : v.rank),
  },
  {
    key: "optimizer",
    label: "Optimizer",
    first: "ascending",
    value: (v) => String(v.entry.optimizer),
    compare: collator.compare,
  },
  {
    key: "speedup",
    label: "Speed-up",
    unit: "95% interval",
    first: "descending",
    value: (v) => v.speedup?.value ?? null,
  },
  {
    key: "trend",
    label: "Trend",
    unit: "per doubling",
    first: "descending",
    value: (v) => v.trend?.value ?? null,
    cell: (v) => trendText(v.trend),
  },
  {
    key: "wall_clock",
    label: "In time",
    unit: "speed-up",
    first: "descending",
    value: (v) => v.wall_clock,
    cell: (v) => times(v.wall_clock),
  },
  {
    key: "probe_loss",
    label: "Probe loss",
    first: "ascending",
    value: (v) => v.probe_loss,
    cell: lossCell,
  },
  {
    key: "heldout_kl",
    label: "Held-out KL",
    first: "ascending",
    value: (v) => v.heldout_kl,
    cell: (v) => figure(v.heldout_kl),
  },
  {
    key: "agreement",
    label: "Agreement",
    first: "descending",
    value: (v) => v.agreement,
    cell: (v) => percent(v.agreement),
  },
  {
    key: "accuracy",
    label: "Accuracy",
    first: "descending",
    value: (v) => v.accuracy,
    cell: (v) => percent(v.accuracy),
  },
  {
    key: "step_time",
    label: "Step",
    unit: "× baseline",
    first: "ascending",
    value: (v) => v.step_time,
    cell: (v) => times(v.step_time),
  },
  {
    key: "bytes",
    label: "State",
    unit: "B/param.",
    first: "ascending",
    value: (v) => v.bytes,
    cell: (v) => (v.bytes === null ? NONE : v.bytes.toFixed(1)),
  },
  {
    key: "seeds",
    label: "Seeds",
    first: "descending",
    value: (v) => v.seeds[0],
    cell: (v) => span(v.seeds),
  },
  {
    key: "trials",
    label: "Trials",
    first: "descending",
    value: (v) => v.trials[0],
    cell: (v) => span(v.trials),
  },
  {
    key: "failed",
    label: "Failed",
    unit: "div. + crash",
    first: "ascending",
    value: (v) => v.diverged + v.crashed,
    cell: (v) => (v.diverged + v.crashed ? `${v.diverged} + ${v.crashed}` : NONE),
  },
  {
    key: "verdict",
    label: "Verified",
    first: "descending",
    value: (v) => (v.verdict === "reproduced") - (v.verdict === "failed"),
    cell: verdictCell,
  },
  {
    key: "warnings",
    label: "Warn.",
    first: "ascending",
    value: (v) => v.entry.warnings.length,
    cell: (v) => v.entry.warnings.length || NONE,
  },
];

function lossCell(v) {
  // With as many decimals as the loss.
  const std = v.std >= 5e-5 && v.probe_loss >= 1e-3 ? v.std.toFixed(4) : figure(v.std);
  return [figure(v.probe_loss), h("span", { class: "spread" }, v.std === null ? "" : ` ± ${std}`)];
}

function verdictCell(v) {
  const known = VERDICTS.get(v.verdict);
  return h("span", { class: known ? `verdict-${v.verdict}` : "quiet" }, known ?? "not yet");
}

// Views sorted by a column: missing values last, equal ones by speed-up and then by position.
function sorted(views, key, direction) {
  const column = COLUMNS.find((one) => one.key === key);
  const compare = column.compare ?? ((a, b) => a - b);
  const sign = direction === "ascending" ? 1 : -1;
  const keyed = views.map((view) => [column.value(view), view]);
  keyed.sort(([a, v], [b, w]) => {
    if (a === null || b === null) return a === b ? bySpeedup(v, w) : a === null ? 1 : -1;
    return sign * compare(a, b) || bySpeedup(v, w) || v.entry.index - w.entry.index;
  });
  return keyed.map(([, view]) => view);
}

function header(axis, pick) {
  return h(
    "tr",
    {},
    COLUMNS.map((column) => {
      const { key, label, unit } = column;
      const button = h(
        "button",
        { type: "button", class: "sort", onclick: () => pick(column) },
        h("span", {}, label),
        unit ? h("small", {}, unit) : null,
      );
      return h(
        "th",
        { scope: "col", class: `col-${key}`, "data-key": key },
        button,
        key === "speedup" ? axis?.header() : null,
      );
    }),
  );
}

// The logarithmic axis that all whiskers share; null if no speed-up is known.
function whiskerAxis(views) {
  const known = views.map((view) => view.speedup).filter(Boolean);
  if (!known.length) return null;
  const [least, most] = extent(known.map((speedup) => speedup.value));
  const [low, high] = extent(known.flatMap((speedup) => speedup.interval ?? [speedup.value]));
  const domain = padded(
    [Math.min(1, Math.max(low, least / 2)), Math.max(1, Math.min(high, most * 2))],
    true,
    0.06,
  );
  const { width, height, pad } = WHISKER;
  const place = scale(domain, [pad, width - pad], true);
  const at = (x) => Math.min(width - 1, Math.max(1, place(x)));
  const middle = height / 2;
  const one = () => s("line", { class: "unity", x1: at(1), x2: at(1), y1: 0, y2: height });

  function header() {
    const shown = [1]; // and other ticks at least 27 pixels apart
    for (const x of ticks(domain, true, 6))
      if (shown.every((other) => Math.abs(at(x) - at(other)) > 27)) shown.push(x);
    const marks = shown.map((x) =>
      s("text", { x: at(x), y: 11, "text-anchor": "middle" }, `${tickText(x)}×`),
    );
    return s("svg", { class: "whisker-axis", width, height: 14, "aria-hidden": "true" }, marks);
  }

  function row(speedup, style) {
    const svg = s(
      "svg",
      { class: `whisker ${style}`, width, height, "aria-hidden": "true" },
      one(),
    );
    if (!speedup) return svg;
    const x = at(speedup.value);
    if (speedup.interval)
      svg.append(reach(at(speedup.interval[0]), at(speedup.interval[1]), middle));
    if (speedup.bound === "=") svg.append(s("circle", { cx: x, cy: middle, r: 2.7 }));
    else
      svg.append(
        s("path", { class: "beyond", d: arrow(x, middle, speedup.bound === ">" ? 9 : -9) }),
      );
    return svg;
  }
  return { header, row };
}

// A whisker with caps, as path data of an interval.
function reach(low, high, y) {
  return s("path", { class: "reach", d: `M${low},${y - 3.5}v7m0,-3.5H${high}m0,-3.5v7` });
}

// Path data of a horizontal arrow from x; a negative `length` points left.
function arrow(x, y, length) {
  const head = 4 * Math.sign(length);
  return `M${x},${y}h${length}m${-head},-3.5l${head},3.5l${-head},3.5`;
}

function bodyRow(view, axis, style, rungCount, open, toggle) {
  const { entry } = view;
  const row = h("tr", {
    class: `entry${entry.baseline ? " is-baseline" : ""}${entry.provisional ? " is-own" : ""}`,
    "data-entry": entry.index,
  });
  for (const { key, cell } of COLUMNS) {
    if (key === "optimizer") {
      const button = h(
        "button",
        {
          type: "button",
          class: "expand",
          "aria-expanded": String(open),
          "aria-controls": `detail-${entry.index}`,
        },
        h("span", { class: "chevron", "aria-hidden": "true" }),
        name(entry.optimizer),
      );
      button.addEventListener("click", () => toggle(entry, button));
      const notes = [
        entry.baseline ? "baseline" : null,
        entry.provisional ? "provisional" : null,
        entry.reaches.length ? "reaches beyond jax" : null,
        rungCount > view.rungs.length ? `${view.rungs.length} of ${rungCount} rungs` : null,
      ].filter(Boolean);
      row.append(
        h(
          "th",
          { scope: "row", class: `col-${key}` },
          button,
          notes.length ? h("span", { class: "note" }, notes.join(", ")) : null,
        ),
      );
    } else if (key === "speedup") {
      const { speedup } = view;
      const interval = speedup?.interval
        ? `[${speedup.interval.map((x) => x.toFixed(2)).join(", ")}]`
        : "";
      const whisker = axis ? axis.row(speedup, style(entry)) : null;
      row.append(
        h(
          "td",
          { class: `col-${key}` },
          h("b", {}, speedText(speedup)),
          whisker,
          h("span", { class: "spread" }, interval),
        ),
      );
    } else {
      row.append(h("td", { class: `col-${key}` }, cell(view)));
    }
  }
  return row;
}

// Puts a bracket around rows that share a rank, if the table is sorted by rank.
function markTies(views, rows, byRank) {
  views.forEach((view, i) => {
    const same = (other) => byRank && view.rank !== null && other?.rank === view.rank;
    const [above, below] = [same(views[i - 1]), same(views[i + 1])];
    rows[i].classList.toggle("tied", above || below);
    rows[i].classList.toggle("tie-start", below && !above);
    rows[i].classList.toggle("tie-end", above && !below);
    rows[i].classList.toggle("group-start", byRank && i > 0 && !above);
  });
}
