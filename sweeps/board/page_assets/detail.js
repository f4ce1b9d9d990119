// The details under an opened row: everything needed to judge the entry and to run it again.
function detailRow(entry) {
  const inner = h(
    "div",
    { class: "detail" },
    String(entry.optimizer).length > 24
      ? h("p", { class: "full-name" }, name(entry.optimizer))
      : null,
    block("Results by horizon, in steps", hyperparameters(entry), "two"),
    h(
      "div",
      { class: "stack" },
      block("Speed-up, all horizons together", score(entry)),
      block("Search space", space(entry)),
    ),
    entry.summary || entry.source?.text ? block("Rule", rule(entry), "wide") : null,
    block("Provenance", facts(provenance(entry)), "wide"),
    block(
      "Warnings",
      entry.warnings.length
        ? h(
            "ul",
            { class: "warned" },
            entry.warnings.map((text) => warning(prose(text))),
          )
        : quiet("None."),
      "wide",
    ),
    block(
      "Reproduce",
      list(entry.reproduce).length ? list(entry.reproduce).map(command) : quiet("Not recorded."),
      "wide",
    ),
  );
  return h(
    "tr",
    { class: "detail-row", id: `detail-${entry.index}` },
    h("td", { colspan: COLUMNS.length }, inner),
  );
}

const block = (title, content, place) =>
  h("section", { class: place }, h("h4", {}, title), content);
const quiet = (text) => h("p", { class: "quiet" }, text);
const facts = (pairs) =>
  h(
    "dl",
    {},
    pairs.map(([key, value]) => [h("dt", {}, plain(key)), h("dd", {}, value)]),
  );

function hyperparameters(entry) {
  const names = [
    ...new Set(entry.rungs.flatMap((rung) => entriesOf(rung.hparams).map(([key]) => key))),
  ];
  const at = (rung, key) =>
    rung.hparams && Object.hasOwn(rung.hparams, key) ? rung.hparams[key] : undefined;
  const cell = (rung, key) => {
    const value = at(rung, key);
    const edge = list(rung.edges).includes(key);
    const note = edge ? h("abbr", { title: "at the edge of its range" }, " edge") : null;
    return h(
      "td",
      { class: edge ? "edge" : null },
      value === undefined ? NONE : setting(value),
      note,
    );
  };
  const results = [
    ["speed-up", (rung) => speedText(speedupOf(rung.speedup))],
    ["probe loss", (rung) => figure(number(rung.mean?.probe_loss))],
  ];
  return h(
    "div",
    { class: "scroll-x" },
    h(
      "table",
      {},
      h("caption", {}, "Results and best hyperparameters"),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "col" }, "Name"),
          entry.rungs.map((rung) => h("th", { scope: "col" }, rung.horizon.toLocaleString("en"))),
        ),
      ),
      h(
        "tbody",
        {},
        results.map(([title, text]) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, title),
            entry.rungs.map((rung) => h("td", {}, text(rung))),
          ),
        ),
        names.map((key) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, name(key)),
            entry.rungs.map((rung) => cell(rung, key)),
          ),
        ),
      ),
    ),
  );
}

function score(entry) {
  const speedup = speedupOf(entry.overall);
  const trend = trendOf(entry.overall?.trend);
  const { task, paper } = entry.overall?.wall_clock ?? {};
  const between = (interval, text) => (interval ? ` [${interval.map(text).join(", ")}]` : "");
  const pairs = [
    ["in steps", speedText(speedup) + between(speedup?.interval, (x) => x.toFixed(2))],
    [
      "change per doubling of the steps",
      trend ? percent(trend.value, 1) + between(trend.interval, (x) => percent(x, 1)) : NONE,
    ],
    ["in time", times(number(task))],
    ["in time, estimated for the paper's networks", times(number(paper))],
  ];
  return speedup ? facts(pairs) : quiet("Not measured.");
}

function space(entry) {
  const searched = entriesOf(entry.space).map(([key, domain]) => [
    key,
    h("span", {}, domainText(domain)),
  ]);
  const fixed = entriesOf(entry.fixed).map(([key, value]) => [
    key,
    h("span", {}, setting(value), " (fixed)"),
  ]);
  return searched.length + fixed.length
    ? facts([...searched, ...fixed])
    : quiet("Nothing was searched.");
}

// What the rule is, and the file that declares it.
function rule(entry) {
  const { file, text } = entry.source ?? {};
  return [
    entry.summary ? h("p", {}, prose(entry.summary)) : null,
    text
      ? h(
          "details",
          {},
          h("summary", {}, `Source: ${plain(file)}`),
          h("pre", { class: "source", dir: "ltr", tabindex: "0" }, prose(text)),
        )
      : null,
  ];
}

function domainText(domain) {
  if (Array.isArray(domain?.values))
    return domain.values.flatMap((value, i) => [i ? ", " : "one of ", setting(value)]);
  if (number(domain?.low) === null) return plain(JSON.stringify(domain));
  return [
    setting(domain.low),
    " to ",
    setting(domain.high),
    domain.kind === "Log" ? ", logarithmic" : ", linear",
  ];
}

function provenance(entry) {
  const { verdict, detail, unverified } = entry.verification ?? {};
  const verified = [
    plain(verdict ?? "not yet verified"),
    detail ? `: ${prose(detail)}` : "",
    unverified?.length ? `; not verified: ${unverified.map(plain).join(", ")}` : "",
  ].join("");
  const pairs = [
    ["verification", verified],
    ["--opt", name(entry.spec ?? NONE)],
    ["source SHA-256", h("code", {}, plain(entry.source_sha256 ?? NONE))],
  ];
  if (entry.reaches.length)
    pairs.push([
      "reaches beyond jax, optax and numpy",
      h("span", { class: "long" }, prose(entry.reaches.join("; "))),
    ]);
  const { step_ms, baseline_step_ms, teacher_ms } = entry.cost ?? {};
  const ms = (value) => (number(value) === null ? NONE : `${value.toPrecision(3)} ms`);
  if (number(step_ms) !== null)
    pairs.push([
      "time of a student's step",
      `${ms(step_ms)}; baseline ${ms(baseline_step_ms)}; teacher's answers ${ms(teacher_ms)}`,
    ]);
  return [...pairs, ...entriesOf(entry.environment).map(([key, value]) => [key, setting(value)])];
}
