"use strict";
// What every figure needs: the report's data, texts, and a way to draw.

const REPORT = JSON.parse(document.getElementById("report-data").textContent);
REPORT.trials = rows(REPORT.trials);
const COMPLETED = REPORT.trials.filter((t) => t.state === "completed");
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "pentagon"];
const QUIET = "#9aa3ad";
const BETTER = { max: "higher is better", min: "lower is better" };

/** Of the model, group or seed at this place. */
function colour(place) {
  return REPORT.palette[place % REPORT.palette.length];
}

function symbol(place) {
  return SYMBOLS[place % SYMBOLS.length];
}

/** Columns, as they are stored, to one object per trial; what a trial does not have is left out. */
function rows(columns) {
  const present = (table, i) => Object.fromEntries(
    Object.entries(table).map(([key, values]) => [key, values[i]]).filter(([, value]) => value !== null));
  return columns.id.map((id, i) => ({
    id, state: columns.state[i], epochs: columns.epochs[i], front: columns.front[i], feasible: columns.feasible[i],
    remark: columns.remark[i], masked: columns.masked[i],
    config: present(columns.config, i), metrics: present(columns.metrics, i),
  }));
}

/** At most `most` items, evenly spaced: a browser is slow with more marks than an eye can tell. */
function evenly(items, most) {
  return items.length <= most ? items : Array.from({ length: most }, (_, i) => items[Math.floor(i * items.length / most)]);
}

/** Plotly reads a few HTML tags in its texts: names out of the run must stay plain text. */
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** Three significant digits, without an exponent where the number is readable without. */
function short(value) {
  if (typeof value !== "number") return plain(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  return String(Number(value.toPrecision(3)));
}

/** A parameter's value as a study would write it. */
function parameter(value) {
  return value === "" ? '""' : short(value);
}

/** `split` is where the figures come from; costs are of none. */
function axisTitle(name, split) {
  const metric = REPORT.metrics[name] || {};
  const better = BETTER[metric.direction];
  const unit = metric.unit ? `, ${plain(metric.unit)}` : "";
  const where = split && !name.startsWith("cost.") ? ` on ${split}` : "";
  return plain(name) + where + unit + (better ? ` (${better})` : "");
}

/** "trial 7: <b>...</b>", on validation, with every parameter on a line of its own, for hovering. */
function describe(trial) {
  const metrics = REPORT.objectives.map((o) => `${plain(o.name)}: <b>${short(trial.metrics[o.name])}</b>`);
  const config = Object.entries(trial.config).map(([key, value]) => `${plain(key)}: ${parameter(value)}`);
  const remark = [trial.remark, trial.masked].filter((text) => text).map((text) => `<b>${plain(text)}</b>`);
  const head = `<b>trial ${plain(trial.id)}</b>, on validation`;
  return [head, ...remark, ...metrics, "", ...config].join("<br>");
}

function ink(variable) {
  return getComputedStyle(document.documentElement).getPropertyValue(variable).trim();
}

function layout(extra) {
  const axis = { gridcolor: ink("--line"), linecolor: ink("--soft"), zeroline: false, automargin: true };
  const merged = {
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: ink("--ink") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 60, r: 16, t: 16, b: 50 },
    hoverlabel: { bgcolor: ink("--card"), bordercolor: ink("--line"), font: { color: ink("--ink"), size: 12 }, align: "left" },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    // On a touch screen a finger on a figure scrolls the page.
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    ...extra,
  };
  for (const key of Object.keys(merged).filter((k) => /^[xy]axis\d*$/.test(k))) {
    merged[key] = { ...axis, ...merged[key] };
  }
  return merged;
}

function draw(target, traces, extra) {
  const element = typeof target === "string" ? document.getElementById(target) : target;
  if (element) Plotly.react(element, traces, layout(extra), { displayModeBar: false, responsive: true });
}

function fill(select, names, chosen) {
  for (const name of names) select.add(new Option(name, name, false, name === chosen));
}

/** Draws a figure, and again in other colours when the reader's screen turns dark or light. */
function keepDrawn(drawing) {
  drawing();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawing);
}
