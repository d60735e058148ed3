"use strict";
// Classifier performance against corruption severity.

const LOSSES = { "AUROC (higher is better)": "auroc", "ECE (lower is better)": "ece", "AUROC lost, % of clean": "drop" };

function drawWorsenings() {
  const home = document.getElementById("worsenings");
  const title = picked.value, key = LOSSES[title];
  // One scale for all: a corruption that does no harm should look like it.
  const values = REPORT.worsenings.flatMap((w) => w.losses.flatMap((loss) => loss[key])).filter((v) => v !== null);
  const low = Math.min(...values), high = Math.max(...values), margin = 0.05 * (high - low || 1);
  home.replaceChildren(...REPORT.worsenings.map(() => document.createElement("div")));
  REPORT.worsenings.forEach((worsening, k) => {
    const traces = worsening.losses.map((loss) => ({
      x: worsening.severities, y: loss[key], mode: "lines+markers", name: plain(loss.method),
      line: { color: colour(loss.place) }, marker: { symbol: symbol(loss.place), size: 7 },
      text: worsening.labels.map((label, i) => `${plain(loss.method)}, trial ${plain(loss.id)}<br>${plain(worsening.parameter)} ${plain(label)}<br>AUROC ${short(loss.auroc[i])}, ECE ${short(loss.ece[i])}`),
      hoverinfo: "text",
    }));
    draw(home.children[k], traces, {
      title: { text: plain(worsening.corruption), font: { size: 14 }, x: 0, xanchor: "left", y: 0.98 },
      xaxis: { title: { text: `${plain(worsening.parameter)}, by severity` }, tickvals: worsening.severities, ticktext: worsening.labels.map(plain) },
      yaxis: { title: { text: title }, range: [low - margin, high + margin] },
      margin: { l: 60, r: 8, t: 40, b: 52 }, showlegend: false,
    });
  });
}

const picked = document.getElementById("pick-loss");
if (picked) {
  fill(picked, Object.keys(LOSSES));
  picked.addEventListener("change", drawWorsenings);
  keepDrawn(drawWorsenings);
}
