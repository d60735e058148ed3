"use strict";
// The front with its uncertainty: the staircases that so many seeds attain.

function drawSeeds() {
  if (!REPORT.stairs.length) return;
  const total = REPORT.surfaces;
  const names = { 1: "attained by at least one seed", [total]: `by all ${total}` };
  if (total > 2) names[REPORT.middle] = `by half of them (${REPORT.middle})`;
  const first = REPORT.stairs[0], last = REPORT.stairs.at(-1);
  const band = {
    x: [...first.x, ...[...last.x].reverse()], y: [...first.y, ...[...last.y].reverse()], mode: "lines",
    fill: "toself", fillcolor: "rgba(127, 137, 147, 0.16)", line: { width: 0 }, hoverinfo: "skip", showlegend: false,
  };
  const lines = REPORT.stairs.map((stairs) => {
    const named = stairs.seeds in names, half = total > 2 && stairs.seeds === REPORT.middle;
    return {
      x: stairs.x, y: stairs.y, mode: "lines", name: names[stairs.seeds] ?? "", showlegend: named,
      hoverinfo: "text", text: stairs.x.map(() => `attained by ${stairs.seeds} of ${total} seeds`),
      line: { color: named ? ink("--ink") : QUIET, width: half ? 3 : named ? 1.4 : 1, dash: named && !half ? "dash" : "solid" },
    };
  });
  const points = REPORT.seedPoints.map((seed, i) => ({
    x: seed.x, y: seed.y, mode: "markers", name: `seed ${seed.seed}`,
    marker: { color: colour(i), symbol: symbol(i), size: 9, opacity: 0.85 },
    text: seed.ids.map((id) => `trial ${plain(id)}, seed ${seed.seed}`), hoverinfo: "text+x+y",
  }));
  const [x, y] = REPORT.objectives.map((o) => o.name);
  draw("seeds", [...(total > 1 && last.seeds === total ? [band] : []), ...lines, ...points], {
    xaxis: { title: { text: axisTitle(x, REPORT.seedSplits[x]) } }, yaxis: { title: { text: axisTitle(y, REPORT.seedSplits[y]) } },
    hovermode: "closest", showlegend: true,
  });
}

keepDrawn(drawSeeds);
