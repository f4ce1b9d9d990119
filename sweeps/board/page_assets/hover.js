// Values of a plot's points: of the nearest one to the pointer, and by the arrow keys.
const NEAR = 28; // pixels

// Points are {x, y, text}.
function readable(plot, points) {
  if (!points.length) return;
  const { svg } = plot;
  const host = svg.parentElement;
  const ordered = [...points].sort((a, b) => a.x - b.x || a.y - b.y);
  const ring = s("circle", { class: "reading", r: 6, visibility: "hidden" });
  const tip = h("div", { class: "tip", role: "status", hidden: true });
  let at = -1;

  function show(index) {
    at = index;
    const point = ordered[at];
    ring.setAttribute("visibility", point ? "visible" : "hidden");
    tip.hidden = !point;
    if (!point) return;
    ring.setAttribute("cx", point.x);
    ring.setAttribute("cy", point.y);
    tip.textContent = point.text;
    const scaled = svg.getBoundingClientRect().width / plot.width;
    const room = host.clientWidth - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(room, point.x * scaled - tip.offsetWidth / 2))}px`;
    tip.style.top = `${point.y * scaled - tip.offsetHeight - 10}px`;
  }

  svg.append(ring);
  host.append(tip);
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("pointermove", (event) => {
    const { left, top, width } = svg.getBoundingClientRect();
    const scaled = plot.width / width;
    const [x, y] = [(event.clientX - left) * scaled, (event.clientY - top) * scaled];
    const distances = ordered.map((point) => Math.hypot(point.x - x, point.y - y));
    const nearest = distances.indexOf(Math.min(...distances));
    show(distances[nearest] <= NEAR ? nearest : -1);
  });
  svg.addEventListener("pointerleave", () => show(-1));
  svg.addEventListener("blur", () => show(-1));
  svg.addEventListener("keydown", (event) => {
    const last = ordered.length - 1;
    const next = {
      ArrowRight: Math.min(at + 1, last),
      ArrowLeft: Math.max(at - 1, 0),
      Home: 0,
      End: last,
    }[event.key];
    if (event.key === "Escape") show(-1);
    if (next === undefined) return;
    event.preventDefault();
    show(next);
  });
}
