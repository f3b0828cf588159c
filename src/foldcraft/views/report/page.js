"use strict";
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

// Charts: drawn one after another so that the page can be read meanwhile, and again when the colours change.
function chartConfig() {
  const [ink, muted, line] = ["--ink", "--muted", "--line"].map(colour);
  const text = { labelColor: ink, titleColor: muted, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" };
  return {
    background: "transparent",
    font: "system-ui, sans-serif",
    view: { stroke: null },
    axis: { ...text, gridColor: line, domainColor: muted, tickColor: muted },
    legend: text,
    mark: { color: colour("--good") },
    range: { category: colour("--series").split(" ") },
  };
}

let drawing = 0;
async function drawCharts() {
  const mine = ++drawing;
  const params = ["ink", "paper", "muted", "good", "bad"].map((name) => ({ name, value: colour(`--${name}`) }));
  const options = { actions: false, renderer: "svg", config: chartConfig(), tooltip: { theme: isDark() ? "dark" : "light" } };
  for (const figure of document.querySelectorAll("figure.chart")) {
    if (mine !== drawing) return;
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const plot = figure.querySelector(".plot");
    await vegaEmbed(plot, { ...spec, params: [...(spec.params ?? []), ...params] }, options);
    nameInFull(plot, spec.usermeta?.names ?? {});
    await new Promise((done) => setTimeout(done));
  }
  document.documentElement.dataset.drawn = String(mine);
}

// Names that a chart has no room for are shown whole to whoever points at them.
function nameInFull(plot, names) {
  for (const text of plot.querySelectorAll("svg text")) {
    if (!Object.hasOwn(names, text.textContent)) continue;
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = names[text.textContent];
    text.append(title);
    text.style.pointerEvents = "all";
  }
}

// Tables: a click on a heading sorts, words in the box filter.
function orderOf(cell) {
  return cell.dataset.order === undefined ? cell.textContent.trim() : Number(cell.dataset.order.replace("inf", "Infinity"));
}

function sortBy(table, column) {
  const heads = [...table.querySelectorAll("th")];
  const head = heads[column];
  const first = head.classList.contains("n") ? "descending" : "ascending";
  const other = first === "descending" ? "ascending" : "descending";
  const direction = head.getAttribute("aria-sort") === first ? other : first;
  heads.forEach((each) => each.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows].map((row) => [orderOf(row.cells[column]), row]);
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? (a < b ? -1 : a > b ? 1 : 0) : String(a).localeCompare(String(b), undefined, { numeric: true }));
  rows.sort((a, b) => sign * compare(a[0], b[0]));
  table.tBodies[0].append(...rows.map((row) => row[1]));
}

function filterRows(box, words) {
  const rows = [...box.querySelectorAll("tbody tr")];
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  rows.forEach((row) => (row.hidden = !wanted.every((word) => row.textContent.toLowerCase().includes(word))));
  const left = rows.filter((row) => !row.hidden).length;
  const count = box.querySelector(".count");
  count.dataset.all ??= count.textContent.trim();
  count.textContent = wanted.length ? `${left} of ${rows.length} rows` : count.dataset.all;
}

for (const box of document.querySelectorAll(".table")) {
  const table = box.querySelector("table");
  table.querySelectorAll("th button").forEach((button, column) => button.addEventListener("click", () => sortBy(table, column)));
  box.querySelector("input")?.addEventListener("input", (event) => filterRows(box, event.target.value));
}

// The gallery: selects filter, a press keeps Grad-CAM shown.
for (const gallery of document.querySelectorAll(".gallery")) {
  const cards = [...gallery.querySelectorAll(".cards li")];
  const selects = [...gallery.querySelectorAll("select")];
  const filter = () => {
    cards.forEach((card) => (card.hidden = !selects.every((each) => !each.value || card.dataset[each.dataset.key] === each.value)));
    const left = cards.filter((card) => !card.hidden).length;
    gallery.querySelector(".count").textContent = `${left} image${left === 1 ? "" : "s"}`;
  };
  selects.forEach((each) => each.addEventListener("change", filter));
  const pictures = [...gallery.querySelectorAll("button.picture")];
  const press = (picture, on) => picture.setAttribute("aria-pressed", String(on));
  pictures.forEach((each) => each.addEventListener("click", () => press(each, each.getAttribute("aria-pressed") !== "true")));
  gallery.querySelector(".all-heat")?.addEventListener("change", (event) => pictures.forEach((each) => press(each, event.target.checked)));
}

document.getElementById("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("foldcraft-theme", theme);
  } catch {
    // a page from disk may keep nothing
  }
  drawCharts();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
drawCharts();
