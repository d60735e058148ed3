"use strict";
// Configurations as parallel coordinates.

/** Lines share a trace per shade of colour: a trace each would be slow for hundreds of trials. */
function drawParallel() {
  const axes = REPORT.axes, first = axes.length - REPORT.objectives.length, shades = 12;
  const chosen = first + Math.max(0, document.getElementById("pick-shade").selectedIndex);
  // The end of the scale that is nearest to the paper's own colour would not show.
  const [from, to] = matchMedia("(prefers-color-scheme: dark)").matches ? [0.3, 1] : [0, 0.88];
  const byId = new Map(REPORT.trials.map((t) => [t.id, t]));
  const groups = Array.from({ length: shades }, () => ({ x: [], y: [], text: [] }));
  for (const line of REPORT.lines) {
    const group = groups[Math.min(shades - 1, Math.floor(line.positions[chosen] * shades))];
    group.x.push(...axes.keys(), null);
    group.y.push(...line.positions, null);
    group.text.push(...axes.map(() => describe(byId.get(line.id))), "");
  }
  const traces = groups.map((group, i) => ({
    ...group, mode: "lines+markers", hoverinfo: "text", showlegend: false, opacity: 0.8,
    line: { color: cividis(from + (to - from) * i / (shades - 1)), width: 1.6 }, marker: { size: 4 },
  })).filter((trace) => trace.x.length);
  const ticks = axes.flatMap((axis, i) => axis.ticks.map(([height, label]) => ({
    x: i, y: height, text: plain(label), showarrow: false, xanchor: "left", xshift: 4,
    font: { size: 11, color: ink("--ink") }, bgcolor: ink("--paper"), opacity: 0.85,
  })));
  draw("parallel", traces, {
    xaxis: { tickvals: [...axes.keys()], ticktext: axes.map((a) => plain(a.name)), tickangle: -30,
      range: [-0.1, axes.length - 0.4], gridcolor: ink("--soft"), fixedrange: true },
    yaxis: { visible: false, range: [-0.04, 1.04], fixedrange: true },
    annotations: ticks, hovermode: "closest", margin: { l: 70, r: 16, t: 10, b: 90 },
  });
}

/** The cividis colour map at `level` in [0, 1], by straight lines between five of its colours. */
function cividis(level) {
  const stops = [[0, 34, 78], [66, 78, 108], [124, 123, 120], [185, 172, 112], [254, 232, 56]];
  const place = Math.min(3.999, level * 4), low = Math.floor(place), part = place - low;
  const mixed = stops[low].map((value, i) => Math.round(value + part * (stops[low + 1][i] - value)));
  return `rgb(${mixed.join(",")})`;
}

const shade = document.getElementById("pick-shade");
if (shade) {
  fill(shade, REPORT.objectives.map((o) => o.name));
  shade.addEventListener("change", drawParallel);
  keepDrawn(drawParallel);
}
