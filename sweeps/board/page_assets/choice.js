// The choice of optimizers in the figures. Each keeps its colour, dashes and marker while drawn.
// At first: one's own, the best five others and the baseline.
function defaultChoice(entries) {
  const views = entries
    .map((entry) => summary(entry, null))
    .filter(Boolean)
    .sort(bySpeedup);
  const best = views
    .filter((view) => !view.entry.baseline && !view.entry.provisional && view.speedup)
    .slice(0, 5)
    .map((view) => view.entry);
  const rest = views
    .filter((view) => !view.speedup && !view.entry.baseline && !view.entry.provisional)
    .slice(0, 5 - best.length)
    .map((view) => view.entry);
  const own = views.map((view) => view.entry).filter((entry) => entry.provisional);
  return [...own, ...best, ...rest, ...entries.filter((entry) => entry.baseline)];
}

function assignStyles(styles, drawn) {
  for (const entry of styles.keys()) if (!drawn.has(entry)) styles.delete(entry);
  for (const entry of drawn) {
    if (styles.has(entry)) continue;
    const used = new Set(styles.values());
    let free = 0;
    while (used.has(free)) free++;
    styles.set(entry, entry.baseline ? "base" : free);
  }
}

function drawChoice(state, entries, changed) {
  const views = entries
    .map((entry) => summary(entry, null) ?? { entry, speedup: null })
    .sort((a, b) => b.entry.baseline - a.entry.baseline || bySpeedup(a, b));
  byId("choice-list").replaceChildren(
    ...views.map(({ entry, speedup }) => {
      const mark = h("span", { class: "swatch-place" }, swatch(state.style(entry)));
      const box = h("input", {
        type: "checkbox",
        "data-entry": entry.index,
        onchange: () => {
          if (box.checked) state.chosen.add(entry);
          else state.chosen.delete(entry);
          changed();
        },
      });
      box.checked = state.chosen.has(entry);
      return h(
        "label",
        {},
        box,
        mark,
        name(entry.optimizer),
        h("span", { class: "quiet" }, entry.baseline ? "baseline" : speedText(speedup)),
      );
    }),
  );
}

// Updates swatches and check marks in place, so that the focused element keeps the focus.
function refreshChoice(state, entries) {
  for (const box of byId("choice-list").querySelectorAll("input")) {
    const entry = entries.find((one) => one.index === Number(box.dataset.entry));
    box.checked = state.chosen.has(entry);
    box.nextElementSibling.replaceChildren(swatch(state.style(entry)));
  }
}
