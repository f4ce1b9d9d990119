// The state of the page, and what to redraw when it changes.
const MAX_DRAWN = 30; // by the button; readers can tick more
const FIRST_ROWS = 100; // of the table; a button shows the rest
const board = readBoard(JSON.parse(byId("data").textContent));
const state = {
  task: board.names[0] ?? null,
  horizon: null, // null: overall
  text: "",
  sort: { key: "rank", direction: "ascending" },
  open: new Set(),
  showAll: false,
  chosen: new Set(),
  styles: new Map(),
  metric: PROBE,
  cost: "step_time",
  arrowChoice: null,
  entries: () => board.entries.filter((entry) => entry.task === state.task),
  views: () =>
    state
      .entries()
      .map((entry) => summary(entry, state.horizon))
      .filter(Boolean),
  // In the order in which they were chosen, the baseline last.
  drawn: () => [...state.chosen].sort((a, b) => a.baseline - b.baseline),
  style: (entry) => state.styles.get(entry) ?? null,
  figureHorizon: () =>
    state.horizon ?? commonHorizon(state.drawn().length ? state.drawn() : state.entries()),
  // The optimizer whose speed-ups are drawn as arrows.
  arrowEntry: () =>
    state.drawn().find((entry) => entry === state.arrowChoice) ??
    state.drawn().find((entry) => !entry.baseline) ??
    null,
};

const FIGURES = new Map([
  ["convergence", drawConvergence],
  ["patience", drawPatience],
  ["sensitivity", drawSensitivity],
  ["best-after", drawBestAfter],
  ["pareto", drawPareto],
  ["profile", drawProfile],
]);
const figureIds = [...FIGURES.keys()];

function showFigures(...ids) {
  for (const id of ids) FIGURES.get(id)(byId(id), state, board);
}

let table = new Map(); // view -> function that makes its row on the first call

function showTable() {
  const views = state.views();
  const axis = whiskerAxis(views);
  const rungCount =
    state.horizon === null ? Math.max(0, ...views.map((view) => view.rungs.length)) : 1;
  const style = (entry) => classOf(state.style(entry));
  table = new Map(
    views.map((view) => {
      let row = null;
      return [
        view,
        () => (row ??= bodyRow(view, axis, style, rungCount, state.open.has(view.entry), toggle)),
      ];
    }),
  );
  byId("table").tHead.replaceChildren(
    header(axis, ({ key, first }) => {
      const turned = state.sort.direction === "ascending" ? "descending" : "ascending";
      state.sort = { key, direction: state.sort.key === key ? turned : first };
      arrangeTable();
    }),
  );
  const scope =
    state.horizon === null
      ? "Overall: one speed-up for all horizons together, and its change when runs get twice as " +
        "long. Geometric mean of losses, mean of agreement and accuracy and total of failures " +
        "over the horizons that others than the baseline ran. Trials are those at the shortest."
      : `At ${steps(state.horizon)}. ± is the standard deviation over seeds.`;
  byId("table-caption").textContent =
    `${scope} Entries sharing a rank are statistically tied. > and < mark bounds. ` +
    "Intervals hold for a repetition with other seeds and another search. In time: the speed-up " +
    "divided by the ratio of whole steps' times, which is Step. State is the update rule's memory.";
  arrangeTable();
}

const matching = () => {
  const wanted = state.text.trim().toLowerCase();
  return [...table.keys()].filter(({ entry }) =>
    `${entry.optimizer} ${entry.spec ?? ""}`.toLowerCase().includes(wanted),
  );
};

// Filters and sorts the existing rows.
function arrangeTable() {
  const { key, direction } = state.sort;
  const found = sorted(matching(), key, direction);
  const shown = state.showAll ? found : found.slice(0, FIRST_ROWS);
  const rows = shown.map((view) => table.get(view)());
  markTies(shown, rows, key === "rank");
  const { tHead, tBodies } = byId("table");
  for (const cell of tHead.rows[0].cells)
    cell.setAttribute("aria-sort", cell.dataset.key === key ? direction : "none");
  tBodies[0].replaceChildren(
    ...shown.flatMap((view, i) =>
      state.open.has(view.entry) ? [rows[i], detailRow(view.entry)] : [rows[i]],
    ),
  );
  byId("count").textContent =
    `${found.length} of ${table.size} ${table.size === 1 ? "entry" : "entries"}`;
  byId("rest").textContent = `Show ${found.length - shown.length} more`;
  byId("rest").hidden = shown.length === found.length;
  byId("empty").textContent = board.entries.length
    ? "No entry matches the search."
    : "The leaderboard is empty: no optimizer has an entry yet.";
  byId("empty").hidden = shown.length > 0;
  byId("table-scroll").hidden = !shown.length;
}

function toggle(entry, button) {
  const open = !state.open.has(entry);
  button.setAttribute("aria-expanded", String(open));
  const row = button.closest("tr");
  if (open) {
    state.open.add(entry);
    row.after(detailRow(entry));
  } else {
    state.open.delete(entry);
    row.nextElementSibling.remove();
  }
}

function showPicked() {
  assignStyles(state.styles, state.chosen);
  refreshChoice(state, state.entries());
  const options = state.drawn().filter((entry) => !entry.baseline);
  const arrowEntry = state.arrowEntry();
  byId("arrows").replaceChildren(
    ...options.map((entry) => {
      const option = h("option", { value: entry.index }, short(entry.optimizer, 40));
      option.selected = entry === arrowEntry;
      return option;
    }),
  );
  showTable();
  showFigures(...figureIds);
}

function choose(entries) {
  state.chosen = new Set(entries);
  showPicked();
}

function showTask() {
  const entries = state.entries();
  const task = board.tasks.find((one) => one.name === state.task);
  state.horizon = null;
  state.chosen = new Set(defaultChoice(entries));
  state.styles = new Map();
  assignStyles(state.styles, state.chosen);
  segments(
    byId("horizon"),
    "horizon",
    [["all", "overall"], ...horizonsOf(entries).map((x) => [String(x), x.toLocaleString("en")])],
    "all",
    (value) => {
      state.horizon = value === "all" ? null : Number(value);
      showTable();
      showFigures(...figureIds);
    },
  );
  drawChoice(state, entries, showPicked);
  drawCertificates(byId("certificates"), task);
  drawDisagreements(byId("disagreements"), task);
  drawTuneChecks(byId("tune-checks"), entries);
  drawCommands(byId("commands"), board, state.task);
  showPicked();
}

function start() {
  for (const place of document.querySelectorAll(".baseline-name"))
    if (board.baseline) place.textContent = short(board.baseline, 60);
  byId("notice").hidden = !board.notice;
  byId("notice").textContent = plain(board.notice ?? "");
  const made = entriesOf(board.made).map(([key, value]) =>
    plain(key === "date" ? value : `${key} ${value}`),
  );
  const tasks = `${board.names.length} ${board.names.length === 1 ? "task" : "tasks"}: ${board.names
    .slice(0, 9)
    .map((task) => short(task, 40))
    .join(", ")}`;
  byId("facts").textContent = [`${board.entries.length} entries`, tasks, ...made].join(" · ");
  byId("task").append(...board.names.map((task) => h("option", { value: task }, short(task, 40))));
  byId("task").addEventListener("change", () => {
    state.task = board.names[byId("task").selectedIndex];
    showTask();
  });
  byId("task-field").hidden = board.names.length < 2;
  byId("filter").addEventListener("input", () => {
    state.text = byId("filter").value;
    arrangeTable();
  });
  byId("rest").addEventListener("click", () => {
    state.showAll = true;
    arrangeTable();
  });
  segments(byId("metric"), "metric", CURVES, state.metric, (value) => {
    state.metric = value;
    showFigures("convergence");
  });
  segments(byId("cost"), "cost", COSTS, state.cost, (value) => {
    state.cost = value;
    showFigures("pareto");
  });
  byId("arrows").addEventListener("change", () => {
    state.arrowChoice = board.entries[Number(byId("arrows").value)];
    showFigures("patience");
  });
  const buttons = [
    ["Best five", () => defaultChoice(state.entries())],
    [
      "All in the table",
      () =>
        sorted(matching(), "speedup", "descending")
          .slice(0, MAX_DRAWN)
          .map((view) => view.entry),
    ],
    ["None", () => []],
  ];
  byId("choice-buttons").append(
    ...buttons.map(([label, pick]) =>
      h("button", { type: "button", class: "small", onclick: () => choose(pick()) }, label),
    ),
  );
  for (const id of figureIds) byId(id).prepend(saveButton(byId(id)));
  byId("controls").hidden =
    byId("figures").hidden =
    byId("validity").hidden =
      !board.entries.length;
  drawAcross(byId("across"), board.across);
  drawPublished(byId("published"), board.published);
  byId("elsewhere").hidden = !["across", "published"].some((id) => byId(id).hasChildNodes());
  drawWarnings(byId("warning-list"), board);
  drawVersions(byId("versions"), board);
  showTask();
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) showFigures(...figureIds);
    width = innerWidth;
  });
}

start();
