// Sorts and filters the table of rows, whose every name is a body of its own. The page is complete
// without it.
document.querySelectorAll("table.groups").forEach((table) => {
  const foot = table.tFoot;
  const bodies = [...table.tBodies];
  const number = (text) => parseFloat(text.replace(/,/g, ""));
  const key = (body, column) => {
    const text = body.rows[0].cells[column].textContent.trim();
    const value = number(text);
    return Number.isNaN(value) || column > 6 ? text : value;
  };
  table.querySelectorAll("thead th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") === "descending" ||
        (column > 6 && !heading.hasAttribute("aria-sort"));
      table.querySelectorAll("th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const keyed = bodies.map((body) => [key(body, column), body]);
      keyed.sort(([x], [y]) => {
        if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
        const order = typeof x === "number" ? x - y : x.localeCompare(y);
        return up ? order : -order;
      });
      foot.before(...keyed.map(([, body]) => body));
    });
  });

  const box = document.createElement("div");
  box.className = "filter";
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "filter by name, path or match";
  input.setAttribute("aria-label", "Filter the rows");
  const output = document.createElement("output");
  box.append(input, output);
  table.parentNode.before(box);
  const words = bodies.map((body) => body.textContent.toLowerCase());
  // Whole numbers of ns or bytes: their sums are exact.
  const deltas = bodies.map((body) => {
    const text = body.rows[0].cells[0].firstChild.data;
    return parseInt(text.replace(/[,.]/g, ""), 10);
  });
  const decimals = table.classList.contains("times") && deltas.length &&
    bodies[0].rows[0].cells[0].textContent.includes(".") ? 6 : 0;
  const tell = () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    let sum = 0;
    bodies.forEach((body, place) => {
      const fits = wanted.every((word) => words[place].includes(word));
      body.hidden = !fits;
      shown += fits;
      sum += fits ? deltas[place] : 0;
    });
    const total = (sum / 10 ** decimals).toLocaleString("en", {
      minimumFractionDigits: decimals, maximumFractionDigits: decimals, signDisplay: "exceptZero",
    });
    output.textContent = `${shown} of ${bodies.length} names, delta ${total}`;
  };
  input.addEventListener("input", tell);
  tell();
});
