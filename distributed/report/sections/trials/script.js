"use strict";
// Sorting and filtering of the table of all trials.

function startTable() {
  const table = document.getElementById("trials");
  if (!table) return;
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const filter = document.getElementById("filter"), state = document.getElementById("filter-state");

  const value = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const compare = (a, b) => {
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  };

  function sort(column) {
    const up = heads[column].getAttribute("aria-sort") !== "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...body.rows].map((row) => [value(row, column), row]);
    // Empty cells go last either way: they are no small numbers.
    rows.sort(([a], [b]) => (a === "") - (b === "") || (up ? compare(a, b) : compare(b, a)));
    body.append(...rows.map(([, row]) => row));
  }

  function show() {
    const wanted = filter.value.trim().toLowerCase();
    let shown = 0;
    for (const row of body.rows) {
      const fits = (!state.value || row.dataset.state === state.value)
        && row.textContent.toLowerCase().includes(wanted);
      row.hidden = !fits;
      shown += fits;
    }
    document.getElementById("shown").textContent = `${shown} of ${body.rows.length} shown`;
  }

  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => sort(column)));
  filter.addEventListener("input", show);
  state.addEventListener("change", show);
  document.getElementById("table-controls").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("all-metrics")?.addEventListener("change", (event) => {
    table.classList.toggle("show-extra", event.target.checked);
  });
  show();
}

startTable();
