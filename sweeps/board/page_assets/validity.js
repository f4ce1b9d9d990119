// The validity certificate, the checks of tuning, the warnings, the commands and the versions.
const MAX_ROWS = 200;
const NUMBERS = ["Between halves", "With itself", "Pairs alike", "Horizon"];
const heading = (text) =>
  h("th", { scope: "col", class: NUMBERS.includes(text) ? null : "text" }, text);
const warning = (...text) => h("li", {}, h("span", { class: "long" }, text));

function drawCertificates(host, task) {
  const found = task?.certificate;
  const metrics = list(found?.metrics).filter((one) => number(one.tau) !== null);
  if (!metrics.length)
    return host.replaceChildren(
      h("p", { class: "empty" }, plain(found?.sentences?.[0] ?? "No certificate.")),
    );
  const two = (x) => number(x)?.toFixed(2) ?? NONE;
  const rows = metrics.map((one) => {
    const interval =
      number(one.low) !== null && number(one.high) !== null ? [one.low, one.high] : null;
    const most = number(one.ceiling) !== null && one.role !== "reported";
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, metricName(one.metric)),
      h("td", { class: "text" }, plain(one.role)),
      h(
        "td",
        { class: "tau text" },
        h("b", {}, two(one.tau)),
        tauWhisker(one.tau, interval),
        h("span", { class: "spread" }, interval ? `[${interval.map(two).join(", ")}]` : ""),
      ),
      h("td", {}, two(one.between_halves), most ? ` of about ${two(one.ceiling)}` : ""),
      h("td", {}, two(one.reliability)),
      h("td", {}, percent(number(one.alike), 0)),
    );
  });
  const head = ["Metric", "Role", "Kendall's τ (axis −1 to 1), 95% interval", ...NUMBERS.slice(0, 3)];
  const caption =
    `${plain(task.name)}: ${two(found.reliability)} is the τ of the probe loss with itself ` +
    `between halves of the seeds, over ${number(found.entry_pairs)?.toLocaleString("en") ?? NONE} ` +
    "pairs of entries";
  host.replaceChildren(
    ...list(found.sentences).slice(0, 1).map((text) => h("p", { class: "prose" }, plain(text))),
    h(
      "div",
      { class: "scroll-x" },
      h(
        "table",
        {},
        h("caption", {}, caption),
        h("thead", {}, h("tr", {}, head.map(heading))),
        h("tbody", {}, rows),
      ),
    ),
  );
}

function tauWhisker(tau, interval) {
  const { width, height } = WHISKER;
  const at = scale([-1, 1], [4, width - 4], false);
  const inside = (x) => at(Math.max(-1, Math.min(1, x)));
  return s(
    "svg",
    { class: "whisker s-none", width, height, "aria-hidden": "true" },
    [0, 1].map((x) => s("line", { class: "unity", x1: at(x), x2: at(x), y1: 0, y2: height })),
    interval ? reach(inside(interval[0]), inside(interval[1]), height / 2) : null,
    s("circle", { cx: inside(tau), cy: height / 2, r: 2.7 }),
  );
}

function drawDisagreements(host, task) {
  const pairs = list(task?.disagreements);
  if (!pairs.length) return host.replaceChildren();
  const rows = pairs
    .slice(0, MAX_ROWS)
    .map((pair) =>
      h(
        "tr",
        {},
        h("td", {}, number(pair.horizon)?.toLocaleString("en") ?? NONE),
        h("td", { class: "text" }, metricName(pair.metric)),
        h("td", { class: "text" }, name(pair.lower_loss)),
        h("td", { class: "text" }, name(pair.better_metric)),
      ),
    );
  const title = h(
    "summary",
    {},
    `Pairs of entries that a held-out metric orders differently: ${pairs.length}`,
  );
  host.replaceChildren(
    h(
      "details",
      { open: pairs.length <= 10 },
      title,
      h(
        "div",
        { class: "scroll-x" },
        h(
          "table",
          {},
          h(
            "caption",
            {},
            pairs.length > MAX_ROWS
              ? `The first ${MAX_ROWS} of ${pairs.length}`
              : "Lower probe loss, but worse by a held-out metric",
          ),
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              ["Horizon", "Metric", "Lower probe loss", "Better by the metric"].map(heading),
            ),
          ),
          h("tbody", {}, rows),
        ),
      ),
    ),
  );
}

// What changing one hyperparameter of the winners at a time gains, for the entries checked so.
function drawTuneChecks(host, entries) {
  const items = entries
    .filter((entry) => entry.tune_check?.sentence)
    .map((entry) =>
      h("li", {}, h("b", {}, name(entry.optimizer)), ": ", plain(entry.tune_check.sentence)),
    );
  host.replaceChildren(
    ...(items.length ? [h("h3", {}, "How well the winners are tuned"), h("ul", {}, items)] : []),
  );
}

function drawWarnings(host, board) {
  const named = board.entries.flatMap((entry) => entry.warnings.map((text) => ({ entry, text })));
  const several = board.names.length > 1;
  const items = [
    ...board.warnings.map((text) => warning(prose(text))),
    ...named.map(({ entry, text }) =>
      warning(
        h("b", {}, several ? `${plain(entry.task)}, ` : "", name(entry.optimizer)),
        " ",
        prose(text),
      ),
    ),
  ];
  if (!items.length) return host.replaceChildren(quiet("None."));
  const shown = h("ul", { class: "warned" }, items.slice(0, 12));
  const rest = items.slice(12);
  host.replaceChildren(
    shown,
    ...(rest.length
      ? [
          h(
            "details",
            {},
            h("summary", {}, `${rest.length} more`),
            h("ul", { class: "warned" }, rest),
          ),
        ]
      : []),
  );
}

function drawCommands(host, board, task) {
  const names = board.entries
    .filter((entry) => entry.task === task)
    .map((entry) => String(entry.optimizer))
    .filter((text) => /^\w+$/.test(text));
  const first = names.find((text) => text !== board.baseline) ?? "NAME";
  const folder = /^\w+$/.test(task ?? "") ? task : "TASK";
  host.replaceChildren(
    command(`python sweeps/verify.py leaderboard/${folder}/${first}.json`),
    command("python sweeps/run.py --opt=all --horizons=ladder --trials=8 --seeds=5"),
  );
}

// Versions and devices, each value with its number of entries.
function drawVersions(host, board) {
  const counted = new Map();
  for (const entry of board.entries) {
    for (const [key, value] of entriesOf(entry.environment)) {
      if (!counted.has(key)) counted.set(key, new Map());
      const text = plain(typeof value === "string" ? value : JSON.stringify(value));
      counted.get(key).set(text, (counted.get(key).get(text) ?? 0) + 1);
    }
  }
  const text = (values) =>
    [...values]
      .map(([value, count]) => (values.size > 1 ? `${value} (${count} entries)` : value))
      .join(", ");
  const made = entriesOf(board.made).map(([key, value]) => [`page: ${key}`, plain(value)]);
  const tasks = board.tasks.map((task) => [
    `task ${task.name}`,
    h("code", {}, plain(task.fingerprint ?? NONE)),
  ]);
  host.replaceChildren(
    facts([...made, ...tasks, ...[...counted].map(([key, values]) => [key, text(values)])]),
  );
}
