"use strict";
// The front's models against the attack's budget.

function drawAttack() {
  const name = curve.value;
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

const curve = document.getElementById("pick-curve");
if (curve) {
  const names = new Set(REPORT.evaluations.flatMap((e) => Object.keys(e.curves)));
  names.delete("epsilon");
  const wanted = REPORT.objectives.map((o) => o.name.replace(/_area$/, ""));
  fill(curve, [...names], [...names].find((n) => wanted.includes(n)));
  curve.addEventListener("change", drawAttack);
  keepDrawn(drawAttack);
}
