"use strict";
// The share of each objective's variance per parameter.

function drawImportances() {
  const told = REPORT.importances;
  if (!told) return;
  const names = Object.keys(told.shares).filter((name) => told.shares[name]);
  const most = (i) => Math.max(...names.map((name) => told.shares[name][i]));
  const order = [...told.parameters.keys()].sort((a, b) => most(b) - most(a));
  const traces = names.map((name, k) => ({
    type: "bar", orientation: "h", name: plain(name), marker: { color: colour(k) },
    x: order.map((i) => told.shares[name][i]), y: order.map((i) => plain(told.parameters[i])),
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
