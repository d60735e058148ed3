"use strict";
// What models are right about where they may abstain.

function drawRisk() {
  const { error, what } = REPORT.risks[0];
  const models = REPORT.risks.filter((model) => model.curves[condition.value]);
  const traces = models.map((model) => {
    const place = REPORT.spotlight.indexOf(model.id), shown = place >= 0;
    const { coverage, risk } = model.curves[condition.value];
    return {
      x: coverage, y: risk, mode: "lines",
      name: shown ? `trial ${plain(model.id)}, ${plain(REPORT.roles[model.id])}` : "other models of the front",
      legendgroup: shown ? model.id : "other", legendrank: shown ? place : 9,
      line: { color: shown ? colour(place) : QUIET, width: shown ? 2.4 : 1.2, dash: ["solid", "dash", "dot"][Math.max(0, place)] },
      hovertemplate: `trial ${plain(model.id)}<br>answers %{x:.0%}<br>${error === "class" ? "wrong %{y:.1%}" : `${what} %{y:.3f}`}<extra></extra>`,
    };
  });
  const others = traces.filter((t) => t.legendgroup === "other");
  others.forEach((trace, i) => { trace.showlegend = i === 0; });
  draw("risk", traces, {
    xaxis: { title: { text: "share of the images that are answered" }, range: [0, 1.01], tickformat: ".0%" },
    yaxis: { title: { text: `${what} among them` }, rangemode: "tozero", ...(error === "class" && { tickformat: ".0%" }) },
    showlegend: true,
  });
}

const condition = document.getElementById("pick-condition");
if (condition) {
  fill(condition, [...new Set(REPORT.risks.flatMap((model) => Object.keys(model.curves)))]);
  condition.addEventListener("change", drawRisk);
  keepDrawn(drawRisk);
}
