"use strict";
// Observed and predicted survival by third of the predicted risk.

function drawSurvival() {
  const home = document.getElementById("survival");
  if (!home) return;
  home.replaceChildren(...REPORT.survival.map(() => document.createElement("div")));
  REPORT.survival.forEach((model, k) => {
    const traces = model.groups.flatMap((group, i) => {
      const name = `${plain(group.name)}: ${group.events} of ${group.patients}`;
      const style = { legendgroup: group.name, name };
      return [
        { ...style, x: group.time, y: group.alive, mode: "lines", line: { color: colour(i), width: 2, shape: "hv" }, hovertemplate: `${plain(group.name)}<br>%{y:.0%} without the event<br>at %{x:.0f} ${plain(model.unit)}<extra></extra>` },
        { ...style, x: model.edges, y: [1, ...group.predicted], mode: "lines+markers", line: { color: colour(i), width: 1, dash: "dash" }, marker: { symbol: symbol(i), size: 6 }, showlegend: false, hovertemplate: `${plain(group.name)}, predicted<br>%{y:.0%} at %{x:.0f} ${plain(model.unit)}<extra></extra>` },
      ];
    });
    draw(home.children[k], traces, {
      title: { text: `trial ${plain(model.id)}, ${plain(model.condition)}`, font: { size: 14 }, x: 0, xanchor: "left", y: 0.98 },
      legend: { orientation: "v", x: 1, xanchor: "right", y: 1, yanchor: "top", bgcolor: "rgba(0, 0, 0, 0)", font: { size: 11 } },
      xaxis: { title: { text: plain(model.unit) }, rangemode: "tozero" },
      yaxis: { title: { text: "share without the event" }, range: [0, 1.02], tickformat: ".0%" },
      margin: { l: 60, r: 8, t: 40, b: 44 },
    });
  });
}

keepDrawn(drawSurvival);
