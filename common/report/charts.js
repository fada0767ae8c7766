// Reads a chart out: what is under the pointer, or, with the arrow keys, one mark after the other.
// Without it every mark still has its <title>, and every row its value beside it.
const readout = document.createElement("div");
readout.className = "readout";
readout.setAttribute("role", "status");
readout.hidden = true;
document.body.append(readout);

const place = (mark, x) => {
  // Beside the mark and inside the window; the style is set by the script, which the policy allows.
  const box = mark.getBoundingClientRect();
  readout.style.maxWidth = `${Math.min(416, innerWidth - 16)}px`;
  const width = readout.offsetWidth;
  const middle = x ?? (box.left + box.right) / 2;
  const left = Math.max(8, Math.min(middle - width / 2, document.documentElement.clientWidth - width - 8));
  const above = box.top - readout.offsetHeight - 6;
  readout.style.left = `${left + scrollX}px`;
  readout.style.top = `${(above > 4 ? above : box.bottom + 6) + scrollY}px`;
};

const three = (value) =>
  Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(3));

document.querySelectorAll("figure.chart").forEach((figure) => {
  // A title that the browser shows by itself would cover the read-out: its words move to where a
  // screen reader finds them too.
  figure.querySelectorAll(".row:not(.axis) title").forEach((title) => {
    const own = title.parentNode;
    own.setAttribute(own.matches("svg") ? "aria-label" : "data-says", title.textContent);
    if (own.matches("svg")) own.dataset.says = title.textContent;
    title.remove();
  });
  const rows = [...figure.querySelectorAll(".row:not(.axis) .plot > svg")].map((plot) => {
    const marks = [...plot.querySelectorAll("[data-says]")];
    return marks.length ? [plot, ...marks] : [plot];
  });
  if (!rows.length) return;
  const axis = figure.querySelector(".row.axis");
  const scale = axis && axis.dataset.high ? axis.dataset : null;
  const hair = document.createElement("div");
  hair.className = "hair";
  hair.hidden = true;
  figure.append(hair);

  let at = null;
  const show = (mark, x, also = "") => {
    at?.classList.remove("at");
    at = mark;
    at.classList.add("at");
    readout.textContent = mark.dataset.says + also;
    readout.hidden = false;
    place(mark, x);
  };
  const hide = () => {
    at?.classList.remove("at");
    at = null;
    readout.hidden = hair.hidden = true;
  };

  // Where the pointer is on the axis that the rows share.
  const value = (plot, x) => {
    const box = plot.getBoundingClientRect();
    const share = (x - box.left) / box.width;
    if (!scale || scale.unit === "round" || share < 0 || share > 1) return "";
    const [low, high] = [+scale.low, +scale.high];
    const there = scale.log ? low * (high / low) ** share : low + share * (high - low);
    const [first, last] = [rows[0][0], rows.at(-1)[0]].map((svg) => svg.getBoundingClientRect());
    const frame = figure.getBoundingClientRect();
    hair.hidden = false;
    hair.style.left = `${x - frame.left}px`;
    hair.style.top = `${first.top - frame.top}px`;
    hair.style.height = `${last.bottom - first.top}px`;
    return ` · pointer at ${three(there)}${scale.suffix || ` ${scale.unit}`}`;
  };
  figure.addEventListener("pointermove", (event) => {
    const plot = event.target.closest?.(".plot > svg");
    const row = plot && rows.find((marks) => marks[0] === plot);
    if (!row) return hide();
    show(event.target.closest("[data-says]") ?? plot, event.clientX, value(plot, event.clientX));
  });
  figure.addEventListener("pointerleave", hide);

  figure.tabIndex = 0;
  figure.setAttribute("role", "group");
  const words = figure.querySelector("figcaption").firstChild.textContent.trim();
  figure.setAttribute("aria-label", `${words}. The arrow keys read its values.`);
  let [row, mark] = [-1, 0];
  figure.addEventListener("keydown", (event) => {
    const steps = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] };
    if (event.key === "Escape") return hide();
    if (!steps[event.key] || event.target !== figure) return;
    event.preventDefault();
    const [down, right] = steps[event.key];
    if (down || row < 0) {
      row = Math.max(0, Math.min(row + (down || 1), rows.length - 1));
      mark = 0;
    } else {
      mark = Math.max(0, Math.min(mark + right, rows[row].length - 1));
    }
    hair.hidden = true;
    rows[row][mark].scrollIntoView({ block: "nearest", behavior: "instant" });
    show(rows[row][mark]);
  });
  figure.addEventListener("blur", hide);
});
