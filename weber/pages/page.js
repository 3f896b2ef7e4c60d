"use strict";
const runs = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const colors = ["var(--a)", "var(--b)"];
const isPair = runs.length > 1;

function make(name, properties = {}, ...children) {
  const space = ["svg", "circle", "path", "text", "line", "rect", "g"].includes(name) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
  const element = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((one) => one !== null && one !== undefined));
  return element;
}

function formatBytes(bytes) {
  return bytes === null || bytes === undefined ? "unknown" : bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(2)} GiB` : `${(bytes / 2 ** 20).toFixed(0)} MiB`;
}

function formatSeconds(seconds) {
  if (seconds === null || seconds === undefined) return "unknown";
  if (seconds < 1) return `${(1000 * seconds).toPrecision(3)} ms`;
  if (seconds < 120) return `${seconds.toPrecision(3)} s`;
  return seconds < 7200 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function formatNumber(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e4 || size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

function smooth(points, weight) {
  let mean = null, total = 0;
  return points.map(([step, value]) => {
    mean = weight * (mean ?? 0) + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return [step, mean / total];
  });
}

const FEW_POINTS = 12; // so few are shown as dots too: a single one makes no line

function drawChart(lines, title, format, weight) {
  const width = 520, height = 250, left = 58, right = 12, top = 12, bottom = 26;
  const series = lines.map((line) => line.points);
  const all = series.flat();
  if (!all.length) return null;
  let range = [Math.min(...all.map((one) => one[0])), Math.max(...all.map((one) => one[0]))];
  const whole = [...range];
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  const caption = make("figcaption", {}, title);
  const legend = lines.length > 1 && lines.some((line) => line.isNamed)
    ? make("p", { class: "legend" }, ...lines.map((line) => make("span", {}, make("i", { style: `background:${line.color}` }), line.label))) : null;
  let start = null;
  const toStep = (event) => {
    const box = svg.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * width - left) / (width - left - right);
    return range[0] + Math.min(1, Math.max(0, share)) * (range[1] - range[0]);
  };
  function draw() {
    svg.replaceChildren();
    const shown = series.map((points) => smooth(points, weight).filter(([step]) => step >= range[0] && step <= range[1]));
    const raw = series.map((points) => points.filter(([step]) => step >= range[0] && step <= range[1]));
    const sorted = raw.flat().map((one) => one[1]).sort((one, other) => one - other);
    if (!sorted.length) return;
    const pick = (share) => sorted[Math.round(share * (sorted.length - 1))];
    const isLong = sorted.length > 50;
    let low = isLong ? pick(0.01) : sorted[0], high = isLong ? pick(0.99) : pick(1);
    if (low === high) { low -= Math.abs(low) * 0.1 || 1; high += Math.abs(high) * 0.1 || 1; }
    const x = (step) => left + (range[1] > range[0] ? (step - range[0]) / (range[1] - range[0]) : 0.5) * (width - left - right);
    const told = new Set();
    const y = (value) => height - bottom - (Math.min(high, Math.max(low, value)) - low) / (high - low) * (height - top - bottom);
    for (let number = 0; number <= 4; number++) {
      const value = low + (high - low) * number / 4, step = range[0] + (range[1] - range[0]) * number / 4;
      svg.append(make("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), stroke: "var(--line)" }));
      svg.append(make("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, format(value)));
      const label = String(Math.round(step));
      if (!told.has(label)) svg.append(make("text", { x: x(step), y: height - 8, "text-anchor": number === 4 ? "end" : "middle" }, label));
      told.add(label);
    }
    const trace = (points) => points.map(([step, value], place) => `${place ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    raw.forEach((points, number) => svg.append(make("path", { d: trace(points), fill: "none", stroke: lines[number].color, "stroke-opacity": weight ? 0.22 : 1 })));
    const dots = raw.flatMap((points, number) => points.length > FEW_POINTS ? [] : points.map((point) => [point, lines[number].color]));
    for (const [[step, value], color] of dots) svg.append(make("circle", { cx: x(step), cy: y(value), r: 3, fill: color }));
    if (weight) shown.forEach((points, number) => svg.append(make("path", { d: trace(points), fill: "none", stroke: lines[number].color, "stroke-width": 2 })));
  }
  svg.addEventListener("pointerdown", (event) => { start = toStep(event); svg.setPointerCapture(event.pointerId); });
  svg.addEventListener("pointerup", (event) => {
    const end = toStep(event);
    if (start !== null && Math.abs(end - start) > (range[1] - range[0]) / 50) { range = [Math.min(start, end), Math.max(start, end)]; draw(); }
    start = null;
  });
  svg.addEventListener("dblclick", () => { range = [...whole]; draw(); });
  svg.addEventListener("pointermove", (event) => {
    const step = toStep(event);
    const said = series.map((points, number) => {
      const near = points.reduce((best, one) => Math.abs(one[0] - step) < Math.abs(best[0] - step) ? one : best, points[0] ?? [0, NaN]);
      return points.length ? `${lines.length > 1 ? lines[number].label + ": " : ""}${format(near[1])} at step ${near[0]}` : "";
    });
    caption.textContent = `${title}: ${said.filter(Boolean).join("; ")}`;
  });
  svg.addEventListener("pointerleave", () => { caption.textContent = title; });
  draw();
  return { figure: make("figure", {}, svg, caption, legend), setWeight(value) { weight = value; draw(); } };
}

function listRuns(choose) {
  return runs.map((run, number) => ({ label: run.name, points: choose(run), color: colors[number] }));
}

function showReadings() {
  const titles = [...new Set(runs.flatMap((run) => run.readings.map((one) => one.title)))];
  const charts = titles.map((title) => {
    const lines = runs.flatMap((run, number) => (run.readings.find((one) => one.title === title)?.series ?? []).map(([label, points], place) => ({
      label: isPair ? `${run.name}, ${label}` : label, points, isNamed: true, color: `hsl(${(number ? 8 : 218) + 47 * place} 65% 50%)` })));
    return drawChart(lines, title, formatNumber, 0);
  }).filter(Boolean);
  if (!charts.length) return make("p", { class: "gray" }, "Nothing was measured yet: that happens every evaluation.every steps.");
  return make("div", { class: "charts" }, ...charts.map((one) => one.figure));
}

function showFindings(run) {
  const rows = run.findings.map(([first, last, text]) => [first === last ? `after step ${first}` : `after steps ${first} to ${last}`, text]);
  return make("div", {},
    isPair ? make("h3", {}, run.name) : null,
    rows.length ? showTable(["", "what was found"], rows) : make("p", { class: "gray" }, "The run doctor has found nothing."));
}

function showCurves() {
  const charts = [
    ["loss", "loss", formatNumber, true],
    ["loss_regularization", "loss of the sets for regularization", formatNumber, true],
    ["grad_norm", "norm of the gradient", formatNumber, true],
    ["lr", "learning rate", formatNumber, false],
    ["seconds", "seconds of a step", formatNumber, true],
    ["peak_memory_bytes", "memory at its peak", formatBytes, false],
  ].map(([name, title, format, isNoisy]) => {
    const chart = drawChart(listRuns((run) => run.curves[name] ?? []), title, format, isNoisy ? 0.9 : 0);
    return chart && { ...chart, isNoisy };
  }).filter(Boolean);
  if (!charts.length) return make("p", { class: "gray" }, "No step has been trained yet.");
  const slider = make("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: 0.9, "aria-label": "smoothing" });
  slider.addEventListener("input", () => charts.filter((one) => one.isNoisy).forEach((one) => one.setWeight(Number(slider.value))));
  return make("div", {},
    make("label", { class: "row" }, "smoothing", slider, make("span", { class: "gray" }, "drag over a part to see it larger, double-click for all")),
    make("div", { class: "charts" }, ...charts.map((one) => one.figure)));
}

function showPair(left, right, names, title) {
  const after = make("img", { src: right, alt: `${title}, ${names[1]}` });
  const before = make("img", { src: left, alt: `${title}, ${names[0]}` });
  const bar = make("i", {});
  const words = [make("small", { style: "left:6px" }, names[0]), make("small", { style: "right:6px" }, names[1])];
  const slider = make("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": `${names[0]} or ${names[1]}` });
  const box = make("div", { class: "pair" }, after, before, slider, bar, ...words);
  const place = () => { before.style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`; bar.style.left = `${slider.value}%`; };
  slider.addEventListener("input", place);
  before.addEventListener("load", () => box.style.setProperty("--shape", `${before.naturalWidth} / ${before.naturalHeight}`));
  place();
  return { box, set(source, name) { after.src = source; words[1].textContent = name; } };
}

function showPictures() {
  const [first, second] = runs;
  const mine = first.pictures.filter((one) => one.images.length);
  if (!mine.length) return make("p", { class: "gray" }, "No pictures were painted: sampling.prompts is empty, or nothing was painted yet.");
  if (isPair) return showTwo(first, second);
  const labels = (one) => `step ${one.step}`;
  const start = mine[0], end = mine[mine.length - 1];
  const pairs = start.images.map((image, number) => showPair(image, end.images[number] ?? image, [labels(start), labels(end)], first.prompts[number] ?? ""));
  const said = make("span", { class: "gray" }, labels(end));
  const slider = make("input", { type: "range", min: 0, max: mine.length - 1, value: mine.length - 1, "aria-label": "step of the right side" });
  slider.addEventListener("input", () => {
    const one = mine[slider.value];
    said.textContent = labels(one);
    pairs.forEach((pair, number) => pair.set(one.images[number] ?? start.images[number], labels(one)));
  });
  return make("div", {},
    mine.length > 1 ? make("label", { class: "row" }, "right side", slider, said) : null,
    make("div", { class: "gallery" }, ...pairs.map((pair, number) => make("figure", {}, pair.box, make("figcaption", {}, first.prompts[number] ?? start.names[number])))));
}

function showTwo(first, second) {
  const [one, other] = [first, second].map((run) => run.pictures[run.pictures.length - 1]);
  if (!one || !other) return make("p", { class: "gray" }, "Only one of the runs has painted pictures.");
  const shared = first.prompts.map((prompt, number) => [prompt, number, second.prompts.indexOf(prompt)]).filter((row) => row[2] >= 0);
  if (!shared.length) return make("p", { class: "gray" }, "The runs have no prompt in common.");
  const isSame = (mine, theirs) => first.seeds[mine] === second.seeds[theirs];
  const names = [`${first.name}, step ${one.step}`, `${second.name}, step ${other.step}`];
  return make("div", { class: "gallery" }, ...shared.map(([prompt, mine, theirs]) => make("figure", {},
    showPair(one.images[mine], other.images[theirs], names, prompt).box,
    make("figcaption", {}, `${prompt} (${isSame(mine, theirs) ? "the same seed" : "other seeds"})`))));
}

function showTable(head, rows) {
  return make("div", { class: "scroll" }, make("table", {},
    make("tr", {}, ...head.map((one) => make("th", {}, one))),
    ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, cell instanceof Node ? cell : String(cell)))))));
}

function showSettings() {
  if (!isPair) {
    const rows = runs[0].settings.map(([key, value, usual]) => [make("code", {}, key), make("code", {}, value), make("code", {}, usual)]);
    return rows.length ? showTable(["setting", "here", "default"], rows) : make("p", { class: "gray" }, "All settings have their defaults.");
  }
  const maps = runs.map((run) => new Map(run.settings.map(([key, value]) => [key, value])));
  const usual = new Map(runs.flatMap((run) => run.settings.map(([key, , value]) => [key, value])));
  const keys = [...usual.keys()].filter((key) => maps[0].get(key) !== maps[1].get(key));
  const rows = keys.map((key) => [make("code", {}, key), ...maps.map((map) => make("code", {}, map.get(key) ?? usual.get(key) ?? ""))]);
  return rows.length ? showTable(["setting", ...runs.map((run) => run.name)], rows) : make("p", { class: "gray" }, "The settings are the same.");
}

function showCards(run, number) {
  const planned = run.planned ?? {};
  const beside = (value, wanted, format) => wanted === undefined ? format(value) : `${format(value)}; the plan says ${format(wanted)}`;
  const cards = [
    [run.wanted ? `${run.done} of ${run.wanted}` : run.done, "steps"],
    [formatSeconds(run.seconds), "in training steps"],
    [beside(run.perStep, planned.perStep, formatSeconds), "a step (median)"],
    [beside(run.memory, planned.memory, formatBytes), "memory at its peak"],
  ];
  const last = (run.curves.loss ?? []).slice(-50).map((one) => one[1]);
  if (last.length) cards.push([formatNumber(last.reduce((sum, one) => sum + one, 0) / last.length), `loss, mean of the last ${last.length} points`]);
  return make("div", {},
    isPair ? make("h2", { class: "ab"[number] }, run.name) : null,
    make("p", { class: "gray" }, `${run.title} · ${run.folder}`),
    make("div", { class: "cards" }, ...cards.map(([value, title]) => make("div", { class: "card" }, make("b", {}, String(value)), make("span", {}, title)))),
    planned.why ? make("p", { class: "gray" }, `The plan could not be made again here: ${planned.why}`) : null);
}

function showFiles(run) {
  const rows = [
    ...run.results.map(([name, bytes]) => [name, formatBytes(bytes)]),
    ...run.checkpoints.map(([name, step]) => [name, `a checkpoint of step ${step}`]),
  ];
  return make("div", {},
    isPair ? make("h3", {}, run.name) : null,
    rows.length ? showTable(["file", ""], rows) : make("p", { class: "gray" }, "Nothing was saved yet."),
    make("pre", {}, run.commands.map(([what, command]) => `# ${what}\n${command}`).join("\n")));
}

page.append(
  make("h1", {}, runs.map((run) => run.name).join(" and ")),
  ...runs.map(showCards),
  make("h2", {}, "Pictures"), showPictures(),
  make("h2", {}, "Run doctor"), ...runs.map(showFindings),
  make("h2", {}, "Curves"), showCurves(),
  make("h2", {}, "Measured now and then"), showReadings(),
  make("h2", {}, isPair ? "Settings that differ" : "Settings that differ from the defaults"), showSettings(),
  ...runs.filter((run) => run.planned && run.planned.pictures).flatMap((run) => [
    make("h2", {}, isPair ? `Data of ${run.name}` : "Data"), make("pre", {}, run.planned.pictures)]),
  make("h2", {}, "Files, and how to go on"), ...runs.map(showFiles),
  ...runs.filter((run) => run.imported).flatMap((run) => [make("h2", {}, "Imported settings"), make("pre", {}, run.imported)]),
);
