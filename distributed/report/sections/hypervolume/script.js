"use strict";
// The hypervolume against the number of trials, time, or what they cost.

function drawHypervolume() {
  const { ids, hypervolume, spent } = REPORT.growth;
  const title = document.getElementById("pick-spent")?.value ?? Object.keys(spent)[0];
  draw("hypervolume", [{
    x: spent[title], y: hypervolume, mode: ids.length > 300 ? "lines" : "lines+markers",
    line: { shape: "hv", color: colour(0) }, marker: { size: 6 },
    text: ids.map((id, i) => `after trial ${plain(id)}: <b>${short(hypervolume[i])}</b>`), hoverinfo: "text",
  }], {
    xaxis: { title: { text: plain(title) }, rangemode: "tozero" },
    yaxis: { title: { text: "hypervolume (higher is better)" } },
  });
}

const spending = document.getElementById("pick-spent");
if (spending) {
  fill(spending, Object.keys(REPORT.growth.spent));
  spending.addEventListener("change", drawHypervolume);
}
keepDrawn(drawHypervolume);
