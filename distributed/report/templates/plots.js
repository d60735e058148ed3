"use strict";
// Figures of the configurations and of the judged models.

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

function drawAttack() {
  const pick = document.getElementById("pick-curve");
  if (!pick) return;
  const name = pick.value;
  const models = REPORT.evaluations.filter((e) => e.curves.epsilon && e.curves[name]);
  const traces = models.map((model) => {
    const place = REPORT.spotlight.indexOf(model.id), shown = place >= 0;
    return {
      x: model.curves.epsilon, y: model.curves[name], mode: "lines+markers",
      name: shown ? `trial ${plain(model.id)}, ${plain(REPORT.roles[model.id])}` : "other models of the front",
      legendgroup: shown ? model.id : "other", legendrank: shown ? place : 9,
      line: { color: shown ? colour(place) : QUIET, width: shown ? 2.4 : 1.2 },
      marker: { symbol: symbol(shown ? place : 0), size: shown ? 8 : 4 },
      hovertemplate: `trial ${plain(model.id)}<br>ε = %{x}<br>${plain(name)} %{y:.3f}<extra></extra>`,
    };
  });
  const others = traces.filter((t) => t.legendgroup === "other");
  others.forEach((trace, i) => { trace.showlegend = i === 0; });
  const searched = models.filter((m) => REPORT.spotlight.includes(m.id) && m.searched[name]);
  traces.push(...searched.map((model, i) => ({
    x: model.curves.epsilon, y: model.searched[name], mode: "lines", name: "the same under the attack of the search",
    legendgroup: "searched", legendrank: 9, showlegend: i === 0,
    line: { color: colour(REPORT.spotlight.indexOf(model.id)), width: 1.4, dash: "dash" },
    hovertemplate: `trial ${plain(model.id)}, attack of the search<br>ε = %{x}<br>${plain(name)} %{y:.3f}<extra></extra>`,
  })));
  if (name in REPORT.trivial && models.length) {
    const ends = models[0].curves.epsilon;
    traces.push({
      x: [ends[0], ends.at(-1)], y: [REPORT.trivial[name], REPORT.trivial[name]], mode: "lines",
      name: "best that ignores the image", line: { color: ink("--soft"), width: 1.4, dash: "dot" }, hoverinfo: "skip", legendrank: 10,
    });
  }
  draw("attack", traces, {
    xaxis: { title: { text: "attack budget ε on the [0, 1] pixel scale" } },
    yaxis: { title: { text: `${plain(name)} on the test split` } }, showlegend: true,
  });
}

function drawReliability() {
  const home = document.getElementById("reliability");
  if (home) drawDiagrams(home, REPORT.spotlight.map((id) => REPORT.evaluations.find((e) => e.id === id)));
  const more = document.getElementById("more-reliability");
  if (more?.open) drawDiagrams(more.querySelector(".multiples"), REPORT.evaluations);
}

function drawDiagrams(home, evaluations) {
  const models = evaluations.filter((e) => Object.keys(e.reliability).length);
  home.replaceChildren(...models.map(() => document.createElement("div")));
  models.forEach((model, k) => {
    const traces = [{ x: [0, 1], y: [0, 1], mode: "lines", line: { dash: "dash", color: QUIET, width: 1 }, hoverinfo: "skip", showlegend: false }];
    Object.entries(model.reliability).forEach(([name, bins], i) => {
      const kept = [...bins.count.keys()].filter((b) => bins.count[b] > 0);
      const pick = (key) => kept.map((b) => bins[key][b]);
      const style = { line: { color: colour(i) }, marker: { symbol: symbol(i), size: 6 }, mode: "lines+markers", name: plain(name), legendgroup: name };
      const text = kept.map((b) => `${plain(name)}<br>confidence ${short(bins.confidence[b])}<br>accuracy ${short(bins.accuracy[b])}<br>count ${short(bins.count[b])}`);
      traces.push({ ...style, x: pick("confidence"), y: pick("accuracy"), text, hoverinfo: "text" });
      traces.push({ ...style, x: pick("confidence"), y: pick("count"), yaxis: "y2", text, hoverinfo: "text", showlegend: false });
    });
    draw(home.children[k], traces, {
      title: { text: `trial ${plain(model.id)}, ${plain(REPORT.roles[model.id])}`, font: { size: 14 }, x: 0, xanchor: "left", y: 0.98 },
      xaxis: { title: { text: "confidence" }, range: [0, 1.02], anchor: "y2" },
      yaxis: { title: { text: "accuracy" }, range: [0, 1.02], domain: [0.34, 1] },
      yaxis2: { title: { text: "count" }, type: "log", domain: [0, 0.24], nticks: 4, exponentformat: "power" },
      margin: { l: 56, r: 8, t: 62, b: 44 },
    });
  });
}

function drawFixed() {
  drawHypervolume();
  drawSeeds();
  if (document.getElementById("parallel")) drawParallel();
  drawImportances();
  drawAttack();
  drawReliability();
  drawRisk();
  drawWorsenings();
}

const shade = document.getElementById("pick-shade");
if (shade) {
  fill(shade, REPORT.objectives.map((o) => o.name));
  shade.addEventListener("change", drawParallel);
}
// What is closed has no width to draw in.
document.getElementById("more-reliability")?.addEventListener("toggle", drawReliability);
const curve = document.getElementById("pick-curve");
if (curve) {
  const names = new Set(REPORT.evaluations.flatMap((e) => Object.keys(e.curves)));
  names.delete("epsilon");
  const wanted = REPORT.objectives.map((o) => o.name.replace(/_area$/, ""));
  fill(curve, [...names], [...names].find((n) => wanted.includes(n)));
  curve.addEventListener("change", drawAttack);
}
