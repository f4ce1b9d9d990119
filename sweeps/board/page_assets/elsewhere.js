// Tasks side by side: each optimizer's rank and speed-up on every task that it ran.
function drawAcross(host, across) {
  const tasks = list(across?.tasks);
  const rows = list(across?.rows).map((row) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, name(row.optimizer)),
      list(row.places).flatMap((place) => {
        const speedup = speedupOf(place?.speedup);
        return [
          h("td", {}, number(place?.rank) ?? NONE),
          h("td", {}, speedText(speedup)),
          h(
            "td",
            { class: "text spread" },
            speedup?.interval ? `[${speedup.interval.map((x) => x.toFixed(2)).join(", ")}]` : "",
          ),
        ];
      }),
    ),
  );
  if (!rows.length) return host.replaceChildren();
  const groups = tasks.map((task) =>
    h("th", { scope: "colgroup", colspan: 3, class: "text" }, short(task, 40)),
  );
  const columns = tasks.flatMap(() => [
    h("th", { scope: "col" }, "Rank"),
    h("th", { scope: "col" }, "Speed-up"),
    h("th", { scope: "col", class: "text" }, "95% interval"),
  ]);
  host.replaceChildren(
    h(
      "div",
      { class: "scroll-x" },
      h(
        "table",
        {},
        h("caption", {}, "Optimizers that are on several tasks' leaderboards"),
        h(
          "thead",
          {},
          h("tr", {}, h("th", { scope: "col", class: "text", rowspan: 2 }, "Optimizer"), groups),
          h("tr", {}, columns),
        ),
        h("tbody", {}, rows),
      ),
    ),
    h(
      "ul",
      {},
      [...list(across.sentences), ...list(across.contradictions)].map((text) =>
        h("li", {}, prose(text)),
      ),
    ),
  );
}

// Results that others published, beside the order on a leaderboard.
function drawPublished(host, published) {
  const items = list(published).map((one) =>
    h(
      "li",
      {},
      list(one.sentences).map((text) => [prose(text), " "]),
      list(one.contradictions).length
        ? h(
            "ul",
            {},
            list(one.contradictions).map((text) => h("li", {}, prose(text))),
          )
        : null,
      list(one.settings).some((setting) => number(setting.tau) !== null)
        ? h("details", {}, h("summary", {}, "Every setting, and the source"), settingsTable(one))
        : null,
    ),
  );
  host.replaceChildren(
    ...(items.length ? [h("h3", {}, "Beside published results"), h("ul", {}, items)] : []),
  );
}

function settingsTable(one) {
  const rows = list(one.settings).map((setting) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, plain(setting.setting)),
      h("td", {}, list(setting.optimizers).length),
      h("td", {}, number(setting.tau)?.toFixed(2) ?? NONE),
      h("td", {}, `${number(setting.kept) ?? NONE} of ${number(setting.separated) ?? NONE}`),
    ),
  );
  const head = ["Optimizers", "Kendall's τ", "Significant pairs in the same order"];
  return [
    h("p", { class: "prose" }, prose(`${one.measure} Source: ${one.source}.`)),
    h(
      "div",
      { class: "scroll-x" },
      h(
        "table",
        {},
        h("caption", {}, `The order on ${plain(one.task)} and in each setting`),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("th", { scope: "col", class: "text" }, "Setting"),
            head.map((text) => h("th", { scope: "col" }, text)),
          ),
        ),
        h("tbody", {}, rows),
      ),
    ),
  ];
}
