"use strict";
// Reliability diagrams of the front's models.

function drawReliability() {
  const home = document.getElementById("reliability");
  if (home) drawDiagrams(home, REPORT.spotlight.map((id) => REPORT.evaluations.find((e) => e.id === id)));
  const more = document.getElementById("more-reliability");
  if (more?.open) drawDiagrams(more.querySelector(".multiples"), REPORT.evaluations);
}

function drawDiagrams(home, evaluations) {
  const [predicted, observed] = REPORT.reliability_axes;
  const models = evaluations.filter((e) => Object.keys(e.reliability).length);
  home.replaceChildren(...models.map(() => document.createElement("div")));
  models.forEach((model, k) => {
    const traces = [{ x: [0, 1], y: [0, 1], mode: "lines", line: { dash: "dash", color: QUIET, width: 1 }, hoverinfo: "skip", showlegend: false }];
    Object.entries(model.reliability).forEach(([name, bins], i) => {
      const kept = [...bins.count.keys()].filter((b) => bins.count[b] > 0);
      const pick = (key) => kept.map((b) => bins[key][b]);
      const style = { line: { color: colour(i) }, marker: { symbol: symbol(i), size: 6 }, mode: "lines+markers", name: plain(name), legendgroup: name };
      const text = kept.map((b) => `${plain(name)}<br>${predicted} ${short(bins.confidence[b])}<br>${observed} ${short(bins.accuracy[b])}<br>count ${short(bins.count[b])}`);
      traces.push({ ...style, x: pick("confidence"), y: pick("accuracy"), text, hoverinfo: "text" });
      traces.push({ ...style, x: pick("confidence"), y: pick("count"), yaxis: "y2", text, hoverinfo: "text", showlegend: false });
    });
    draw(home.children[k], traces, {
      title: { text: `trial ${plain(model.id)}, ${plain(REPORT.roles[model.id])}`, font: { size: 14 }, x: 0, xanchor: "left", y: 0.98 },
      xaxis: { title: { text: predicted }, range: [0, 1.02], anchor: "y2" },
      yaxis: { title: { text: observed }, range: [0, 1.02], domain: [0.34, 1] },
      yaxis2: { title: { text: "count" }, type: "log", domain: [0, 0.24], nticks: 4, exponentformat: "power" },
      margin: { l: 56, r: 8, t: 62, b: 44 },
    });
  });
}

keepDrawn(drawReliability);
// What is closed has no width to draw in.
document.getElementById("more-reliability")?.addEventListener("toggle", drawReliability);
