// Saves a figure as an SVG file that looks the same elsewhere: styles become attributes.
const SAVED = [
  "fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin",
  "opacity", "font-size", "font-family", "font-weight", "paint-order", "text-anchor", "visibility",
];

function standalone(svg) {
  const copy = svg.cloneNode(true);
  const originals = [svg, ...svg.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((node, i) => {
    const style = getComputedStyle(originals[i]);
    for (const name of SAVED) {
      const value = style.getPropertyValue(name);
      if (value) node.setAttribute(name, value);
    }
    node.removeAttribute("class");
  });
  for (const node of copy.querySelectorAll('[visibility="hidden"]')) node.remove();
  copy.setAttribute("xmlns", SVG);
  copy.removeAttribute("tabindex");
  const paper = getComputedStyle(document.body).backgroundColor;
  copy.prepend(s("rect", { width: "100%", height: "100%", fill: paper }));
  return `<?xml version="1.0" encoding="UTF-8"?>\n${new XMLSerializer().serializeToString(copy)}`;
}

function saveButton(figure) {
  const save = () => {
    const svg = figure.querySelector(".plot svg");
    if (!svg) return;
    const address = URL.createObjectURL(new Blob([standalone(svg)], { type: "image/svg+xml" }));
    h("a", { href: address, download: `${figure.id}.svg` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  };
  return h("button", { type: "button", class: "small save", onclick: save }, "Save as SVG");
}
