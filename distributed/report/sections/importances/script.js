"use strict";
// The share of each objective's variance per parameter.

function drawImportances() {
  const importances = REPORT.importances;
  if (!importances) return;
  const names = Object.keys(importances.shares).filter((name) => importances.shares[name]);
  const most = (i) => Math.max(...names.map((name) => importances.shares[name][i]));
  const order = [...importances.parameters.keys()].sort((a, b) => most(b) - most(a));
  const traces = names.map((name, k) => ({
    type: "bar", orientation: "h", name: plain(name), marker: { color: colour(k) },
    x: order.map((i) => importances.shares[name][i]), y: order.map((i) => plain(importances.parameters[i])),
    hovertemplate: "%{y}: %{x:.2f}",
  }));
  const element = document.getElementById("importances");
  if (element) element.style.height = `${110 + 24 * order.length * Math.max(1, names.length) ** 0.7}px`;
  draw("importances", traces, {
    xaxis: { title: { text: "share of variance" }, range: [0, null], rangemode: "tozero" },
    yaxis: { autorange: "reversed" }, barmode: "group", bargap: 0.3, showlegend: true,
  });
}

keepDrawn(drawImportances);
