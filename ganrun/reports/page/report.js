"use strict";
// Tables: sort by a column, filter rows by words, hide rows and columns. The page can be read without this.

const valueOf = (row, column) => {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  return text === "" || isNaN(text) ? text.toLowerCase() : Number(text);
};

const compare = (a, b) => {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === "number") return -1; // numbers before texts
  if (typeof b === "number") return 1;
  return a.localeCompare(b, "en", { numeric: true });
};

function sortBy(table, column) {
  const head = table.tHead.rows[0].cells[column];
  const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const missing = (value) => value === "-" || value === "";
  const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, column), row]);
  rows.sort(([a], [b]) => missing(a) - missing(b) || sign * compare(a, b)); // missing values come last
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function filter(table, words) {
  for (const row of table.tBodies[0].rows) {
    const text = row.textContent.toLowerCase();
    row.classList.toggle("filtered", !words.every((word) => text.includes(word)));
  }
}

function showColumn(table, column, shown) {
  for (const row of [...table.tHead.rows, ...table.tBodies[0].rows]) row.cells[column].hidden = !shown;
}

// The curves and dots of a setting, in all figures of its part: elements such as line-2.
function showSeries(part, number, shown) {
  for (const element of part.querySelectorAll(`figure [id$="-${number}"]`)) {
    // ids of other elements, as of ticks, do not have this form
    if (/^(line|band|dots|mean)-\d+$/.test(element.id)) element.classList.toggle("hidden", !shown);
  }
  part.querySelector(`[data-legend="${number}"]`)?.classList.toggle("hidden", !shown);
}

function setUp(grid) {
  const table = grid.querySelector("table");
  const all = grid.querySelector(".all");
  const part = grid.closest(".part");
  const hide = (row, hidden) => {
    row.classList.toggle("hidden", hidden);
    if (row.dataset.series !== undefined) showSeries(part, row.dataset.series, !hidden);
    const number = table.tBodies[0].querySelectorAll("tr.hidden").length;
    all.hidden = number === 0;
    all.textContent = `Show ${number} hidden`;
  };
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (head) sortBy(table, head.cellIndex);
  });
  grid.querySelector("input[type=search]").addEventListener("input", (event) => {
    filter(table, event.target.value.toLowerCase().split(/\s+/).filter(Boolean));
  });
  grid.querySelector(".columns").addEventListener("change", (event) => {
    showColumn(table, Number(event.target.value), event.target.checked);
  });
  table.tBodies[0].addEventListener("click", (event) => {
    if (event.target.matches(".hide")) hide(event.target.closest("tr"), true);
  });
  all.addEventListener("click", () => {
    for (const row of table.tBodies[0].querySelectorAll("tr.hidden")) hide(row, false);
  });
}

async function copy(button) {
  const code = button.previousElementSibling;
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  } catch { // without permission: select it, so that it can be copied by hand
    getSelection().selectAllChildren(code);
  }
}

for (const grid of document.querySelectorAll(".grid")) setUp(grid);
document.addEventListener("click", (event) => {
  if (event.target.matches(".copy")) copy(event.target);
});
document.documentElement.dataset.ready = "true";
