"use strict";
// What models are right about where they may abstain, and classifiers as data get worse.

function drawRisk() {
  const pick = document.getElementById("pick-condition");
  if (!pick) return;
  const segmented = REPORT.risks.some((model) => model.error === "dice");
  const models = REPORT.risks.filter((model) => model.curves[pick.value]);
  const traces = models.map((model) => {
    const place = REPORT.spotlight.indexOf(model.id), shown = place >= 0;
    const { coverage, risk } = model.curves[pick.value];
    return {
      x: coverage, y: risk, mode: "lines",
      name: shown ? `trial ${plain(model.id)}, ${plain(REPORT.roles[model.id])}` : "other models of the front",
      legendgroup: shown ? model.id : "other", legendrank: shown ? place : 9,
      line: { color: shown ? colour(place) : QUIET, width: shown ? 2.4 : 1.2, dash: ["solid", "dash", "dot"][Math.max(0, place)] },
      hovertemplate: `trial ${plain(model.id)}<br>answers %{x:.0%}<br>${segmented ? "1 - Dice %{y:.3f}" : "wrong %{y:.1%}"}<extra></extra>`,
    };
  });
  const others = traces.filter((t) => t.legendgroup === "other");
  others.forEach((trace, i) => { trace.showlegend = i === 0; });
  draw("risk", traces, {
    xaxis: { title: { text: "share of the images that are answered" }, range: [0, 1.01], tickformat: ".0%" },
    yaxis: segmented
      ? { title: { text: "mean of 1 - Dice among them" }, rangemode: "tozero" }
      : { title: { text: "error rate among them" }, rangemode: "tozero", tickformat: ".0%" },
    showlegend: true,
  });
}

const LOSSES = { "AUROC (higher is better)": "auroc", "ECE (lower is better)": "ece", "AUROC lost, % of clean": "drop" };

function drawWorsenings() {
  const home = document.getElementById("worsenings");
  if (!home) return;
  const title = document.getElementById("pick-loss").value, key = LOSSES[title];
  // One scale for all: a corruption that does no harm should look like it.
  const values = REPORT.worsenings.flatMap((w) => w.losses.flatMap((loss) => loss[key])).filter((v) => v !== null);
  const low = Math.min(...values), high = Math.max(...values), margin = 0.05 * (high - low || 1);
  home.replaceChildren(...REPORT.worsenings.map(() => document.createElement("div")));
  REPORT.worsenings.forEach((worsening, k) => {
    const traces = worsening.losses.map((loss) => ({
      x: worsening.severities, y: loss[key], mode: "lines+markers", name: plain(loss.trainable),
      line: { color: colour(loss.place) }, marker: { symbol: symbol(loss.place), size: 7 },
      text: worsening.labels.map((label, i) => `${plain(loss.trainable)}, trial ${plain(loss.id)}<br>${plain(worsening.parameter)} ${plain(label)}<br>AUROC ${short(loss.auroc[i])}, ECE ${short(loss.ece[i])}`),
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

const condition = document.getElementById("pick-condition");
if (condition) {
  fill(condition, [...new Set(REPORT.risks.flatMap((model) => Object.keys(model.curves)))]);
  condition.addEventListener("change", drawRisk);
}
const loss = document.getElementById("pick-loss");
if (loss) {
  fill(loss, Object.keys(LOSSES));
  loss.addEventListener("change", drawWorsenings);
}
drawFixed();
