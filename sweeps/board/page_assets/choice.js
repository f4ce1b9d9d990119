// Which optimizers the figures draw. A drawn one keeps its colour, dash and marker for as long as it is drawn.
function defaultChoice(entries) {
  const views = entries.map((entry) => summary(entry, null)).filter(Boolean).sort(bySpeedup);
  const best = views.filter((view) => !view.entry.baseline && view.speedup).slice(0, 5).map((view) => view.entry);
  const rest = views.filter((view) => !view.speedup && !view.entry.baseline).slice(0, 5 - best.length).map((view) => view.entry);
  return [...best, ...rest, ...entries.filter((entry) => entry.baseline)];
}

function assignSlots(slots, drawn) {
  for (const entry of slots.keys()) if (!drawn.has(entry)) slots.delete(entry);
  for (const entry of drawn) {
    if (slots.has(entry)) continue;
    const used = new Set(slots.values());
    let free = 0;
    while (used.has(free)) free++;
    slots.set(entry, entry.baseline ? "base" : free);
  }
}

function drawChoice(state, entries, changed) {
  const views = entries.map((entry) => summary(entry, null) ?? { entry, speedup: null }).sort((a, b) => b.entry.baseline - a.entry.baseline || bySpeedup(a, b));
  byId("choice-list").replaceChildren(...views.map(({ entry, speedup }) => {
    const mark = h("span", { class: "swatch-place" }, swatch(state.slot(entry)));
    const box = h("input", { type: "checkbox", "data-entry": entry.index, onchange: () => {
      if (box.checked) state.chosen.add(entry);
      else state.chosen.delete(entry);
      changed();
    } });
    box.checked = state.chosen.has(entry);
    return h("label", {}, box, mark, name(entry.optimizer), h("span", { class: "quiet" }, entry.baseline ? "baseline" : speedText(speedup)));
  }));
}

// Swatches and ticks after a change, without touching the list: whoever holds the focus keeps it.
function refreshChoice(state, entries) {
  for (const box of byId("choice-list").querySelectorAll("input")) {
    const entry = entries.find((one) => one.index === Number(box.dataset.entry));
    box.checked = state.chosen.has(entry);
    box.nextElementSibling.replaceChildren(swatch(state.slot(entry)));
  }
}
