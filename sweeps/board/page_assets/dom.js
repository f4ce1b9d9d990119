// Elements and text. Every string from the data passes through plain() or prose() and becomes a
// text node, never markup.
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);
const byId = (id) => document.getElementById(id);

// Spells out characters that are invisible or change the order of other characters.
const spell = (c) => `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
const plain = (text) => String(text).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, spell);
const prose = (text) => String(text).split("\n").map(plain).join("\n");
const short = (text, most) => {
  const letters = Array.from(plain(String(text).slice(0, 200)));
  return letters.length > most ? letters.slice(0, most - 1).join("") + "…" : letters.join("");
};
// A name breaks after an underscore before it breaks elsewhere.
const name = (text) =>
  h(
    "bdi",
    { class: "name" },
    plain(text)
      .split(/(?<=_)/)
      .flatMap((part) => [h("wbr"), part]),
  );

const NONE = "–";
const figure = (x) =>
  x === null
    ? NONE
    : x !== 0 && Math.abs(x) < 1e-3
      ? x.toExponential(1)
      : x >= 100
        ? x.toPrecision(4)
        : x.toFixed(4);
const valueText = figure; // for functions that call an element of the page `figure`
const percent = (x, digits = 2) => (x === null ? NONE : `${(100 * x).toFixed(digits)}%`);
const times = (x) => (x === null ? NONE : `${x >= 100 ? x.toPrecision(3) : x.toFixed(2)}×`);
const steps = (x) => `${x.toLocaleString("en")} steps`;
const span = ([low, high]) => (low === high ? String(low) : `${low}–${high}`);
const METRICS = new Map([
  ["probe_loss", "probe loss"],
  ["test_kl", "clean-image KL"],
  ["heldout_kl", "held-out KL"],
  ["agreement", "agreement"],
  ["accuracy", "accuracy"],
]);
const metricName = (key) => METRICS.get(key) ?? plain(key);

function speedText(speedup) {
  return speedup ? (speedup.bound === "=" ? "" : speedup.bound) + times(speedup.value) : NONE;
}

// A change per doubling of the steps, such as "-2.1% ± 3.0".
function trendText(trend) {
  if (!trend) return NONE;
  const [low, high] = trend.interval ?? [trend.value, trend.value];
  const reach = trend.interval ? ` ± ${(50 * (high - low)).toFixed(1)}` : "";
  return `${trend.value > 0 ? "+" : ""}${percent(trend.value, 1)}${reach}`;
}

// A hyperparameter's value; a number is shown to six digits, and in full on hover.
function setting(value) {
  if (typeof value === "number")
    return h("span", { title: String(value) }, String(Number(value.toPrecision(6))));
  return h("bdi", {}, plain(typeof value === "string" ? value : (JSON.stringify(value) ?? NONE)));
}

// Radio buttons that look like one control; `options` are [value, label] pairs.
function segments(host, group, options, chosen, pick) {
  host.querySelectorAll("label").forEach((label) => label.remove());
  for (const [value, label] of options) {
    const input = h("input", { type: "radio", name: group, value, onchange: () => pick(value) });
    input.checked = value === chosen;
    host.append(h("label", {}, input, h("span", {}, label)));
  }
}

function command(text) {
  const code = h("code", { class: "command", dir: "ltr" }, plain(text));
  const copy = h(
    "button",
    {
      type: "button",
      class: "small",
      onclick: () => {
        // Without a clipboard, the selected text can be copied by hand.
        getSelection().selectAllChildren(code);
        navigator.clipboard?.writeText(code.textContent).then(
          () => {
            copy.textContent = "Copied";
            setTimeout(() => {
              copy.textContent = "Copy";
            }, 2000);
          },
          () => {},
        );
      },
    },
    "Copy",
  );
  return h("div", { class: "command-line" }, code, copy);
}
