// Scales, axes and labels shared by all figures. Lengths are CSS pixels.
const DASHES = ["", "7 3", "2 2.5", "9 3 2 3", "5 2 1.5 2 1.5 2"];
const SHAPES = ["circle", "square", "triangle", "diamond", "cross", "down", "plus"];
const COLOURS = 7; // besides the baseline's; with dashes and shapes they make 35 styles

const classOf = (style) =>
  style === null ? "s-none" : style === "base" ? "s-base" : `s-${style % COLOURS}`;
const dashOf = (style) => (typeof style === "number" ? DASHES[style % DASHES.length] : "");
const shapeOf = (style) => (typeof style === "number" ? SHAPES[style % SHAPES.length] : "ring");

function scale([low, high], [from, to], logarithmic) {
  const f = logarithmic ? (x) => Math.log(Math.max(x, Number.MIN_VALUE)) : (x) => x;
  return (x) => from + ((f(x) - f(low)) / (f(high) - f(low) || 1)) * (to - from);
}

// The domain with a margin; a single value gets a margin wide enough for a scale. A logarithmic
// domain stays positive and finite: numbers come from other people's files.
function padded([low, high], logarithmic, part = 0.05) {
  if (logarithmic) {
    const ratio = low === high ? 1.2 : Math.exp(part * (Math.log(high) - Math.log(low)));
    return [Math.max(low / ratio, Number.MIN_VALUE), Math.min(high * ratio, Number.MAX_VALUE)];
  }
  const margin = (high - low) * part || Math.abs(high) * 0.1 || 1;
  return [low - margin, high + margin];
}

function ticks([low, high], logarithmic, most) {
  if (!Number.isFinite(high - low) || (logarithmic && low <= 0)) return [];
  if (logarithmic) {
    const decades = [];
    for (let d = Math.floor(Math.log10(low)); d <= Math.ceil(Math.log10(high)); d++)
      decades.push(d);
    const fine =
      high < 10 * low
        ? [
            [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8],
            [1, 1.5, 2, 3, 4, 6],
          ]
        : [];
    for (const digits of [
      ...fine,
      [1, 2, 3, 4, 5, 6, 7, 8, 9],
      [1, 2, 3, 5, 7],
      [1, 2, 5],
      [1, 3],
      [1],
    ]) {
      const found = decades
        .flatMap((d) => digits.map((digit) => Number(`${digit}e${d}`)))
        .filter((x) => x >= low && x <= high);
      if (found.length > (high < 10 * low ? 2 : 1) && found.length <= most) return found;
    }
    const powers =
      high < 10 * low
        ? []
        : decades.map((d) => Number(`1e${d}`)).filter((x) => x >= low && x <= high);
    if (powers.length > most)
      return powers.filter((_, i) => i % Math.ceil(powers.length / most) === 0);
  }
  const raw = (high - low) / most;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * unit >= raw) * unit;
  // Steps below the numbers' own digits would never reach the end.
  if (!(step > 1e-12 * Math.max(Math.abs(low), Math.abs(high)))) return [low];
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++)
    found.push(Number((i * step).toPrecision(12)));
  return found;
}

// The order in which tick labels get room: powers of ten first, then their halves and fifths.
function roughness(tick) {
  const digits = Math.abs(tick).toExponential().split("e")[0];
  return { 0: 0, 1: 0, 5: 1, 2: 2 }[digits] ?? 3;
}

function tickText(x) {
  const size = Math.abs(x);
  if (size && (size < 1e-3 || size >= 1e6)) return x.toExponential().replace("e+", "e");
  return size >= 1e3 ? x.toLocaleString("en") : String(x);
}

const factor = (x) => `${tickText(x)}×`;

let pen = null;
function textWidth(text) {
  pen ??= document.createElement("canvas").getContext("2d");
  pen.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(text).width;
}

// Makes an empty plot in `host`. Axes are {domain, log, label, ticks?, text?}; the right margin has
// room for `names`.
function frame(host, title, x, y, names = []) {
  const width = Math.max(host.clientWidth, 240);
  const height = Math.round(Math.min(420, Math.max(260, 0.52 * width)));
  const yTicks = y.ticks ?? ticks(y.domain, y.log, 7);
  const yText = yTicks.map((tick) => (y.text ?? tickText)(tick));
  const right = names.length ? Math.min(150, 22 + Math.max(...names.map(textWidth))) : 14;
  const box = {
    left: 12 + Math.max(24, ...yText.map(textWidth)),
    right: width - right,
    top: 30,
    bottom: height - 40,
  };
  const X = scale(x.domain, [box.left, box.right], x.log);
  const Y = scale(y.domain, [box.bottom, box.top], y.log);
  const svg = s("svg", {
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": title,
  });
  yTicks.forEach((tick, i) =>
    svg.append(
      s("line", { class: "grid", x1: box.left, x2: box.right, y1: Y(tick), y2: Y(tick) }),
      s(
        "text",
        { class: "tick", x: box.left - 7, y: Y(tick) + 3.5, "text-anchor": "end" },
        yText[i],
      ),
    ),
  );
  const taken = [];
  const xTicks =
    x.ticks ?? ticks(x.domain, x.log, Math.max(3, Math.floor((box.right - box.left) / 62)));
  for (const tick of [...xTicks].sort((a, b) => roughness(a) - roughness(b))) {
    const text = (x.text ?? tickText)(tick);
    const half = textWidth(text) / 2;
    svg.append(
      s("line", { class: "axis", x1: X(tick), x2: X(tick), y1: box.bottom, y2: box.bottom + 4 }),
    );
    if (taken.some(([place, width]) => Math.abs(place - X(tick)) < width + half + 6)) continue;
    taken.push([X(tick), half]);
    svg.append(
      s("text", { class: "tick", x: X(tick), y: box.bottom + 17, "text-anchor": "middle" }, text),
    );
  }
  svg.append(
    s("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    s("text", { class: "label", x: 0, y: 13 }, y.label),
    s("text", { class: "label", x: box.right, y: height - 5, "text-anchor": "end" }, x.label),
  );
  host.replaceChildren(svg);
  return { svg, X, Y, box, width, height };
}

function nothing(host, text) {
  host.replaceChildren(h("p", { class: "empty" }, text));
}

// The group of one optimizer's marks; it stands out while the pointer is over it.
function series(plot, entry, style, ...children) {
  const group = s(
    "g",
    { class: `series ${classOf(style)}`, "data-entry": entry.index },
    s("title", {}, short(entry.optimizer, 60)),
    children,
  );
  plot.svg.append(group);
  return group;
}

const path = (points) =>
  points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");

function line(points, style) {
  return [
    s("path", { class: "touch", d: path(points) }),
    s("path", { class: "line", d: path(points), "stroke-dasharray": dashOf(style) || null }),
  ];
}

function marker(style, x, y, r = 3.4) {
  const shape = shapeOf(style);
  if (shape === "circle" || shape === "ring")
    return s("circle", { class: shape === "ring" ? "mark ring" : "mark", cx: x, cy: y, r });
  const outlines = {
    square: `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
    triangle: `M${x},${y - 1.3 * r}l${1.25 * r},${2.2 * r}h${-2.5 * r}z`,
    down: `M${x},${y + 1.3 * r}l${1.25 * r},${-2.2 * r}h${-2.5 * r}z`,
    diamond:
      `M${x},${y - 1.4 * r}l${1.2 * r},${1.4 * r}` +
      `l${-1.2 * r},${1.4 * r}l${-1.2 * r},${-1.4 * r}z`,
    cross: `M${x - r},${y - r}l${2 * r},${2 * r}m0,${-2 * r}l${-2 * r},${2 * r}`,
    plus: `M${x - 1.2 * r},${y}h${2.4 * r}M${x},${y - 1.2 * r}v${2.4 * r}`,
  };
  return s("path", {
    class: shape === "cross" || shape === "plus" ? "mark open" : "mark",
    d: outlines[shape],
  });
}

function swatch(style) {
  return s(
    "svg",
    { class: `swatch ${classOf(style)}`, width: 30, height: 12, "aria-hidden": "true" },
    style === null
      ? null
      : [
          s("line", {
            class: "line",
            x1: 1,
            x2: 29,
            y1: 6,
            y2: 6,
            "stroke-dasharray": dashOf(style) || null,
          }),
          marker(style, 15, 6, 3),
        ],
  );
}

// Moves ascending positions as little as possible until neighbours are `gap` apart: isotonic
// regression of the positions minus the gaps.
function spread(positions, gap, low, high) {
  const blocks = [];
  const level = (block) => block.sum / block.count;
  positions.forEach((position, i) => {
    blocks.push({ sum: position - i * gap, count: 1 });
    while (blocks.length > 1 && level(blocks.at(-2)) > level(blocks.at(-1))) {
      const last = blocks.pop();
      blocks.at(-1).sum += last.sum;
      blocks.at(-1).count += last.count;
    }
  });
  const levels = blocks.flatMap((block) => Array(block.count).fill(level(block)));
  return levels.map(
    (x, i) => Math.min(Math.max(x, low), high - (positions.length - 1) * gap) + i * gap,
  );
}

// Writes names to the right of their lines; `ends` are {group, x, y, text}. Names without room are
// left out; the list of optimizers has them all.
function endLabels(plot, ends) {
  const gap = 13.5;
  const { box } = plot;
  const room = Math.floor((box.bottom - box.top) / gap) + 1;
  const shown = ends.slice(0, room).sort((a, b) => a.y - b.y);
  const at = spread(
    shown.map((end) => end.y),
    gap,
    box.top,
    box.bottom,
  );
  shown.forEach((end, i) =>
    end.group.append(
      s("path", {
        class: "leader",
        d: path([
          [end.x + 5, end.y],
          [Math.max(box.right + 4, end.x + 5), end.y],
          [box.right + 14, at[i]],
        ]),
      }),
      s("text", { class: "name-label", x: box.right + 17, y: at[i] + 3.8 }, end.text),
    ),
  );
}

const labelOf = (entry, host) => short(entry.optimizer, host.clientWidth < 480 ? 11 : 18);
