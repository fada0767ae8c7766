// Sorts a table by the column whose heading is pressed, and filters one that is long by words. The
// page is complete without it.
document.querySelectorAll("table.sortable").forEach((table) => {
  // A long table has two bodies; the second is only shown when it is asked for.
  const bodies = [...table.tBodies];
  const first = bodies[0].rows.length;
  const rows = bodies.flatMap((body) => [...body.rows]);
  const key = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = parseFloat(text.replace(/,/g, ""));
    return Number.isNaN(number) ? text : number;
  };
  table.querySelectorAll("thead th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const now = bodies.flatMap((body) => [...body.rows]);
      const keyed = now.map((row) => [key(row, column), row]);
      keyed.sort(([x], [y]) => {
        if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
        const order = typeof x === "number" ? x - y : x.localeCompare(y);
        return down ? -order : order;
      });
      const sorted = keyed.map(([, row]) => row);
      bodies.forEach((body, n) => body.append(...(n ? sorted.slice(first) : sorted.slice(0, first))));
    });
  });

  if (rows.length < 10) return;
  const box = document.createElement("div");
  box.className = "filter";
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "filter the rows by words";
  input.setAttribute("aria-label", `Filter: ${table.caption.textContent}`);
  const output = document.createElement("output");
  output.textContent = `${rows.length} rows`;
  box.append(input, output);
  (table.closest(".long") ?? table.parentNode).before(box);
  let words = null; // what each row says, read when it is first asked for
  input.addEventListener("input", () => {
    words ??= rows.map((row) => row.textContent.toLowerCase());
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    table.classList.toggle("filtered", wanted.length > 0);
    let shown = 0;
    rows.forEach((row, place) => {
      const fits = wanted.every((word) => words[place].includes(word));
      row.hidden = !fits;
      shown += fits;
    });
    output.textContent = `${shown} of ${rows.length} rows`;
  });
});

// Each entry of a chart's legend switches its curve.
document.querySelectorAll("svg [data-legend]").forEach((entry) => {
  const chart = entry.closest("svg");
  const curves = [...chart.querySelectorAll("[data-series]")]
    .filter((curve) => curve.dataset.series === entry.dataset.legend);
  entry.setAttribute("role", "button");
  entry.setAttribute("tabindex", "0");
  entry.setAttribute("aria-pressed", "true");
  const flip = () => {
    const shown = entry.getAttribute("aria-pressed") !== "true";
    entry.setAttribute("aria-pressed", String(shown));
    entry.setAttribute("opacity", shown ? "1" : "0.35");
    curves.forEach((curve) => curve.setAttribute("visibility", shown ? "visible" : "hidden"));
  };
  entry.addEventListener("click", flip);
  entry.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    flip();
  });
});

// The point that is nearest to the pointer is told in words, and ringed.
document.querySelectorAll(".charts figure").forEach((figure) => {
  const chart = figure.querySelector("svg");
  const caption = figure.querySelector("figcaption");
  const words = caption.textContent;
  const ring = document.createElementNS(chart.namespaceURI, "circle");
  for (const [key, value] of [["r", 7], ["fill", "none"], ["stroke", "#333333"],
    ["visibility", "hidden"]]) ring.setAttribute(key, value);
  chart.append(ring);
  const points = [...chart.querySelectorAll("[data-series] circle")];
  const place = (point) => [+point.getAttribute("cx"), +point.getAttribute("cy")];
  chart.addEventListener("pointermove", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY)
      .matrixTransform(chart.getScreenCTM().inverse());
    const away = (point) => Math.hypot(place(point)[0] - at.x, place(point)[1] - at.y);
    const near = points
      .filter((point) => point.parentNode.getAttribute("visibility") !== "hidden")
      .reduce((best, point) => (!best || away(point) < away(best) ? point : best), null);
    const close = near && away(near) < 40;
    ring.setAttribute("visibility", close ? "visible" : "hidden");
    caption.textContent = close ? near.textContent : words;
    if (!close) return;
    ring.setAttribute("cx", place(near)[0]);
    ring.setAttribute("cy", place(near)[1]);
  });
  chart.addEventListener("pointerleave", () => {
    ring.setAttribute("visibility", "hidden");
    caption.textContent = words;
  });
});
