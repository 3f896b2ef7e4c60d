// A run's page: curves, pictures in full, the slider, and what the server sends as it happens.
import uPlot from "./vendor/uplot.js";

const page = document.getElementById("run");
const places = [page.dataset.at, page.dataset.other].filter(Boolean);
const charts = new Map();
const COLORS = ["#3b6fe0", "#d9822b", "#2f9e5f", "#c2397a", "#8559d6", "#159a9c", "#a67c00", "#7a8494"];
const MOST_LINES = 8;
let isDrawing = false;
let isStale = false;

function read(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function write(value) {
  if (value === null || value === undefined) return "";
  if (value === 0) return "0";
  return Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6 ? value.toExponential(2) : String(+value.toPrecision(5));
}

function join(found) {
  // Charts of one title of two runs become one, over the steps of both.
  const titles = new Map();
  found.forEach((list, run) => {
    for (const chart of list) {
      const rows = titles.get(chart.title) ?? [];
      for (const line of chart.lines) rows.push({ label: places.length > 1 ? `${places[run]}: ${line.label}` : line.label, x: chart.x, y: line.y });
      titles.set(chart.title, rows);
    }
  });
  return [...titles].map(([title, rows]) => {
    const kept = places.length > 1 ? rows.filter((row) => !row.label.endsWith("each step")) : rows;
    const x = [...new Set(kept.flatMap((row) => row.x))].sort((a, b) => a - b);
    const lines = kept.slice(0, MOST_LINES).map((row) => {
      const at = new Map(row.x.map((step, place) => [step, row.y[place]]));
      return { label: row.label, y: x.map((step) => at.get(step) ?? null) };
    });
    return { title, x, lines };
  });
}

function build(chart, box) {
  const axis = { stroke: read("--soft"), grid: { stroke: read("--line"), width: 1 }, ticks: { stroke: read("--line") } };
  const few = chart.x.length <= 60;
  const options = {
    width: Math.max(240, box.clientWidth),
    height: 220,
    scales: { x: { time: false } },
    axes: [{ ...axis }, { ...axis, size: 62, values: (_, ticks) => ticks.map(write) }],
    series: [
      { label: "step" },
      ...chart.lines.map((line, place) => ({
        label: line.label,
        stroke: line.label === "each step" ? `${COLORS[0]}55` : COLORS[place % COLORS.length],
        width: line.label === "each step" ? 1 : 2,
        spanGaps: true,
        points: { show: few && line.label !== "each step", size: 5, fill: COLORS[place % COLORS.length] },
        value: (_, value) => write(value),
      })),
    ],
    cursor: { sync: { key: "weber" } },
  };
  return new uPlot(options, [chart.x, ...chart.lines.map((line) => line.y)], box);
}

function name(chart) {
  return chart.lines.map((line) => line.label).join("\n");
}

async function draw(isAnew = false) {
  const host = document.getElementById("charts");
  if (isDrawing) {
    isStale = true;
    return;
  }
  isDrawing = true;
  try {
    const found = await Promise.all(
      places.map(async (at) => {
        const answer = await fetch(`/run/charts?at=${encodeURIComponent(at)}`);
        return answer.ok ? (await answer.json()).charts : [];
      }),
    );
    for (const chart of join(found)) {
      const known = charts.get(chart.title);
      if (known && known.lines === name(chart) && !isAnew) {
        known.plot.setData([chart.x, ...chart.lines.map((line) => line.y)]);
        continue;
      }
      const figure = known?.figure ?? document.createElement("figure");
      figure.className = "chart";
      figure.replaceChildren();
      const caption = document.createElement("figcaption");
      caption.textContent = chart.title;
      figure.append(caption);
      if (!known) host.append(figure);
      known?.plot.destroy();
      charts.set(chart.title, { figure, lines: name(chart), plot: build(chart, figure) });
    }
    if (!charts.size) host.textContent = "Nothing was measured yet.";
    else for (const child of [...host.childNodes]) if (child.nodeType === Node.TEXT_NODE) child.remove();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // the server is away; it is asked again when it speaks again
  } finally {
    isDrawing = false;
  }
  if (isStale) {
    isStale = false;
    setTimeout(draw, 1000);
  }
}

function tell(name) {
  document.body.dispatchEvent(new Event(`weber:${name}`));
}

// What happens, while somebody looks.
let source = null;
let last = "";
let step = -1;
let drawn = 0;
let state = "";

function listen() {
  if (source || places.length > 1 || document.hidden) return;
  source = new EventSource(`/run/events?at=${encodeURIComponent(places[0])}${last ? `&from=${last}` : ""}`);
  source.addEventListener("status", (event) => {
    const status = JSON.parse(event.data);
    tell("state");
    if (status.status !== state && state) {
      tell("files");
      tell("log");
    }
    state = status.status;
    if (status.step !== step && Date.now() - drawn > 2000) {
      step = status.step;
      drawn = Date.now();
      draw();
    }
  });
  source.addEventListener("line", (event) => {
    last = event.lastEventId;
    const said = JSON.parse(event.data);
    tell("log");
    if (said.type === "validation.image") tell("pictures");
    if (said.type === "training.checkpoint" || said.type === "training.status") tell("files");
    if (said.type === "training.status" || said.type === "evaluation") draw();
  });
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    source?.close();
    source = null;
  } else {
    listen();
    draw();
  }
});
window.addEventListener("pagehide", () => source?.close());
document.addEventListener("weber:theme", () => draw(true));
let width = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return;
  width = window.innerWidth;
  for (const { plot, figure } of charts.values()) plot.setSize({ width: Math.max(240, figure.clientWidth), height: 220 });
});

// What is being changed is not taken away: a form that somebody has opened stays until it is closed.
document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id === "files" && event.detail.target.querySelector("details[open]")) event.detail.shouldSwap = false;
});

// The slider.
function slide() {
  const box = document.querySelector("[data-slider]");
  if (!box) return;
  box.hidden = false;
  const row = document.querySelectorAll(".strips tbody tr")[Number(document.getElementById("slide-prompt").value)];
  const pick = (id) => row?.querySelectorAll("td")[Number(document.getElementById(id).value)]?.querySelector("a");
  for (const [id, from] of [["slide-under", "slide-right"], ["slide-over", "slide-left"]]) {
    const link = pick(from);
    const picture = document.getElementById(id);
    picture.src = link ? link.href : "";
    picture.alt = link ? link.dataset.zoom : "";
  }
  document.getElementById("slide-over").style.clipPath = `inset(0 ${100 - Number(document.getElementById("slide-range").value)}% 0 0)`;
}
document.addEventListener("input", (event) => {
  if (event.target instanceof Element && event.target.id.startsWith("slide-")) slide();
});
document.body.addEventListener("htmx:afterSettle", slide);

// Pictures in full.
const zoom = document.getElementById("zoom");
let shown = 0;
function list() {
  return [...document.querySelectorAll("a[data-zoom]")];
}
function show(place) {
  const links = list();
  if (!links.length) return;
  shown = (place + links.length) % links.length;
  document.getElementById("zoom-picture").src = links[shown].href;
  document.getElementById("zoom-picture").alt = links[shown].dataset.zoom;
  document.getElementById("zoom-name").textContent = links[shown].dataset.zoom;
  if (!zoom.open) zoom.showModal();
}
document.addEventListener("click", (event) => {
  const link = event.target instanceof Element ? event.target.closest("a[data-zoom]") : null;
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  show(list().indexOf(link));
});
document.getElementById("zoom-back").addEventListener("click", () => show(shown - 1));
document.getElementById("zoom-on").addEventListener("click", () => show(shown + 1));
zoom.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") show(shown - 1);
  if (event.key === "ArrowRight") show(shown + 1);
});

slide();
draw();
listen();
