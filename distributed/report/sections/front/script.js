"use strict";
// The front of any two metrics. The choice lives in the address (#x=...&y=...&colour=...), so that
// a link to the page can show a particular pair.

/** Marks of trials off the front that are drawn at most. */
const MOST_MARKS = 2000;

/** Trials that no other one beats in both metrics; equal ones stay together. */
function frontOf(trials, x, y) {
  const turned = (trial, name) => (REPORT.metrics[name].direction === "max" ? -1 : 1) * trial.metrics[name];
  const ordered = trials.filter((t) => t.feasible).sort((a, b) => turned(a, x) - turned(b, x) || turned(a, y) - turned(b, y));
  let best = Infinity, across = null;
  const front = ordered.filter((t) => {
    const equal = turned(t, x) === across && turned(t, y) === best;
    if (turned(t, y) >= best && !equal) return false;
    [across, best] = [turned(t, x), turned(t, y)];
    return true;
  });
  return front.sort((a, b) => a.metrics[x] - b.metrics[x]);
}

/** Configuration keys with few enough distinct texts to colour by. */
function colourKeys() {
  const keys = new Set(COMPLETED.flatMap((t) => Object.keys(t.config)));
  return [...keys].filter((key) => {
    const values = new Set(COMPLETED.map((t) => t.config[key]));
    return values.size > 1 && values.size <= SYMBOLS.length && COMPLETED.some((t) => ["string", "boolean"].includes(typeof t.config[key]));
  });
}

function scatter(trials, x, y, key) {
  const groupOf = (t) => (!key ? "completed" : key in t.config ? parameter(t.config[key]) : "does not apply");
  const groups = [...new Set(trials.map(groupOf))].sort();
  return groups.map((group, i) => {
    const members = trials.filter((t) => groupOf(t) === group);
    return {
      x: members.map((t) => t.metrics[x]), y: members.map((t) => t.metrics[y]),
      text: members.map(describe), hoverinfo: "text", mode: "markers", name: group,
      marker: { color: colour(i), symbol: symbol(i), size: trials.length > 500 ? 5 : 10, opacity: members.map((t) => (t.feasible ? 0.9 : 0.3)) },
    };
  });
}

/** What was stopped early, where it stood then. */
function unfinished(x, y) {
  const members = evenly(REPORT.trials.filter((t) => t.state === "stopped" && x in t.metrics && y in t.metrics), MOST_MARKS / 2);
  return {
    x: members.map((t) => t.metrics[x]), y: members.map((t) => t.metrics[y]), mode: "markers", name: "stopped early",
    text: members.map((t) => `stopped after ${t.epochs} epochs, unfinished<br>${describe(t)}`), hoverinfo: "text",
    marker: { symbol: "x-thin", size: 7, opacity: 0.4, line: { color: ink("--soft"), width: 1.2 } }, visible: members.length > 0,
  };
}

/** The front's models on the test split, each joined with its place on validation. */
function onTest(own, x, y) {
  const seen = own.filter((t) => x in (REPORT.tests[t.id] ?? {}) && y in (REPORT.tests[t.id] ?? {}));
  const at = (t, name) => REPORT.tests[t.id][name][0];
  const reach = (name) => ({
    type: "data", symmetric: false, thickness: 1, width: 3, color: ink("--soft"),
    array: seen.map((t) => Math.max(0, (REPORT.tests[t.id][name][2] ?? at(t, name)) - at(t, name))),
    arrayminus: seen.map((t) => Math.max(0, at(t, name) - (REPORT.tests[t.id][name][1] ?? at(t, name)))),
  });
  const interval = (t, name) => {
    const [value, low, high] = REPORT.tests[t.id][name];
    return `${plain(name)}: <b>${short(value)}</b>` + (low === null ? "" : ` (95 %: ${short(low)} to ${short(high)})`);
  };
  return [
    { x: seen.flatMap((t) => [t.metrics[x], at(t, x), null]), y: seen.flatMap((t) => [t.metrics[y], at(t, y), null]),
      mode: "lines", hoverinfo: "skip", showlegend: false, line: { color: ink("--soft"), width: 1, dash: "dot" } },
    { x: seen.map((t) => at(t, x)), y: seen.map((t) => at(t, y)), mode: "markers", name: "the same on test, 95 %",
      text: seen.map((t) => [`<b>trial ${plain(t.id)}</b>, on test`, interval(t, x), interval(t, y)].join("<br>")), hoverinfo: "text",
      marker: { symbol: "star-diamond-open", size: 11, color: ink("--ink"), line: { width: 1.4 } },
      error_x: reach(x), error_y: reach(y), visible: seen.length > 0 },
  ];
}

function drawFront() {
  const [x, y, key] = ["pick-x", "pick-y", "pick-colour"].map((id) => document.getElementById(id).value);
  const trials = COMPLETED.filter((t) => x in t.metrics && y in t.metrics);
  const directed = REPORT.metrics[x].direction && REPORT.metrics[y].direction;
  const front = directed ? frontOf(trials, x, y) : [];
  const own = trials.filter((t) => t.front);
  const points = (members) => ({ x: members.map((t) => t.metrics[x]), y: members.map((t) => t.metrics[y]) });
  const members = new Set([...front, ...own]);
  const drawn = [...members, ...evenly(trials.filter((t) => !members.has(t)), MOST_MARKS)];
  draw("front", [
    unfinished(x, y),
    { ...points(front), mode: "lines", name: "front of this pair", hoverinfo: "skip",
      line: { shape: REPORT.metrics[x].direction === "max" ? "vh" : "hv", color: ink("--ink"), width: 1.6 } },
    ...scatter(drawn, x, y, key),
    ...onTest(own, x, y),
    { ...points(own), mode: "markers", name: "the study's front", hoverinfo: "skip",
      marker: { symbol: "circle-open", size: 18, color: ink("--ink"), line: { width: 1.6 } } },
    { ...points(drawn.filter((t) => t.remark)), mode: "markers", name: "trivial: one answer for all, or no better", hoverinfo: "skip",
      marker: { symbol: "x-thin", size: 16, line: { color: ink("--ink"), width: 1.8 } }, visible: drawn.some((t) => t.remark) },
    { ...points(drawn.filter((t) => t.masked)), mode: "markers", name: "possible gradient masking", hoverinfo: "skip",
      marker: { symbol: "triangle-up-open", size: 34, color: ink("--bad"), line: { width: 1.8 } }, visible: drawn.some((t) => t.masked) },
  ], {
    xaxis: { title: { text: axisTitle(x, "validation") } }, yaxis: { title: { text: axisTitle(y, "validation") } },
    hovermode: "closest", showlegend: true,
  });
  document.getElementById("front-result").textContent = directed
    ? `Front of ${x} against ${y} on validation: ${front.length} of ${trials.length} trials (${front.map((t) => t.id).join(", ")}).`
      + (drawn.length < trials.length ? ` ${drawn.length} of the ${trials.length} are drawn.` : "")
    : `No front for this pair: the run does not say which way ${REPORT.metrics[x].direction ? y : x} is better.`;
}

function readAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const [name, id] of [["x", "pick-x"], ["y", "pick-y"], ["colour", "pick-colour"]]) {
    const select = document.getElementById(id);
    if ([...select.options].some((o) => o.value === wanted.get(name))) select.value = wanted.get(name);
  }
}

function writeAddress() {
  const chosen = new URLSearchParams();
  for (const name of ["x", "y", "colour"]) chosen.set(name, document.getElementById(`pick-${name}`).value);
  history.replaceState(null, "", `#${chosen}`);
}

function startFront() {
  const form = document.getElementById("front-controls");
  if (!form) return;
  const names = Object.keys(REPORT.metrics).filter((m) => COMPLETED.some((t) => m in t.metrics));
  const objectives = REPORT.objectives.map((o) => o.name);
  fill(document.getElementById("pick-x"), names, objectives[0] ?? names[0]);
  fill(document.getElementById("pick-y"), names, objectives[1] ?? names.find((n) => n !== objectives[0]));
  const keys = colourKeys();
  const colour = document.getElementById("pick-colour");
  fill(colour, keys, ["method", "regime"].find((k) => keys.includes(k)));
  colour.add(new Option("nothing", ""));
  readAddress();
  form.addEventListener("change", () => { writeAddress(); drawFront(); });
  addEventListener("hashchange", () => { readAddress(); drawFront(); });
  keepDrawn(drawFront);
}

startFront();
