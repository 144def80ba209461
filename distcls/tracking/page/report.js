"use strict";
// Draws the panels: data.runs[i].series[kind] has the columns samples, epoch, elapsed, step and metrics by name.
const data = JSON.parse(document.getElementById("data").textContent);
const several = data.runs.length > 1;
const view = { axis: "samples", smooth: 0.5, hidden: new Set(), log: new Set() };
const MARGIN = { left: 50, right: 12, top: 12, bottom: 24 };
const FEW = 40; // points; a line with no more of them gets dots and no smoothing

const color = (index) => `var(--c${index % 8})`;
const escape = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);

function short(value) {
  const size = Math.abs(value);
  for (const [limit, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= limit) return `${+(value / limit).toPrecision(3)}${unit}`;
  }
  return `${+value.toPrecision(3)}`;
}
function clock(seconds) {
  const s = Math.round(seconds), two = (n) => String(n).padStart(2, "0");
  if (s >= 86400) return `${Math.floor(s / 86400)}d${two(Math.floor((s % 86400) / 3600))}h`;
  if (s >= 3600) return `${Math.floor(s / 3600)}h${two(Math.floor((s % 3600) / 60))}m`;
  return s >= 60 ? `${Math.floor(s / 60)}m${two(s % 60)}s` : `${s}s`;
}
const FORMATS = {
  loss: (v) => v.toFixed(4),
  percent: (v) => `${(100 * v).toFixed(2)} %`,
  rate: (v) => (v && Math.abs(v) < 1e-3 ? v.toExponential(2) : String(+v.toPrecision(4))),
  stack: (v) => `${(100 * v).toFixed(1)} %`,
  number: (v) => (Math.abs(v) >= 100 ? Math.round(v).toLocaleString("en") : String(+v.toPrecision(4))),
};
const AXES = {
  samples: { name: "images", tick: short, format: (v) => `${Math.round(v).toLocaleString("en")} images` },
  epoch: { name: "epoch", tick: (v) => String(+v.toFixed(3)), format: (v) => `epoch ${+v.toFixed(2)}` },
  elapsed: { name: "time", tick: (v) => clock(v).replace(/^0s$/, "0").replace(/00[hms]$/, ""), format: clock },
};

// Ticks at 1, 2, 5 times a power of ten; of time at seconds, minutes, hours and days that people count in.
const TIMES = [1, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
function ticks(low, high, count, time) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  let step = power * [1, 2, 5, 10].find((m) => m * power >= rough * 0.999);
  if (time && step <= 86400) step = TIMES.find((t) => t >= rough) || step;
  const found = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) found.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return found;
}
function logTicks(low, high) {
  const found = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++) {
    for (const m of [1, 2, 5]) { const v = m * 10 ** p; if (v >= low && v <= high) found.push(v); }
  }
  if (found.length < 2) return ticks(low, high, 4, false); // less than a factor of two
  return found.length > 7 ? found.filter((v) => Math.abs(Math.log10(v) % 1) < 1e-9) : found;
}

// Exponential mean with its start corrected, over gaps; the weight is per point of some 300, as screens have.
function smoothed(ys, amount) {
  if (amount === 0 || ys.length <= FEW) return ys;
  const weight = amount ** (150 / ys.length);
  let mean = 0, norm = 0;
  return ys.map((y) => {
    if (typeof y !== "number") return y;
    mean = weight * mean + (1 - weight) * y;
    norm = weight * norm + (1 - weight);
    return mean / norm;
  });
}

function seriesOf(panel) {
  const found = [];
  data.runs.forEach((run, index) => {
    if (view.hidden.has(index)) return;
    if (panel.form === "stack" && index !== panel.run) return;
    panel.metrics.forEach((metric, order) => {
      for (const columns of Object.values(run.series)) {
        const ys = columns[metric];
        if (!ys) continue;
        const train = metric.startsWith("train/");
        if (panel.form === "stack") {
          const value = (v) => (typeof v === "number" ? v : 0);
          found.push({ xs: columns[view.axis], raw: ys, ys: ys.map(value), color: color(panel.colors[order]), name: metric.replace("perf/share_", ""), label: metric });
          continue;
        }
        const name = several ? `${run.name} ${metric.split("/")[0]}` : metric.split("/")[0];
        found.push({
          xs: columns[view.axis], raw: ys, ys: train || metric.startsWith("perf/") ? smoothed(ys, view.smooth) : ys,
          color: color(several ? index : order), name, label: metric, thin: several && train && panel.metrics.length > 1,
        });
      }
    });
  });
  return found;
}

function range(panel, series) {
  if (panel.form === "stack") return [0, 1];
  const isLog = view.log.has(panel.title), finite = (values) => values.filter((v) => typeof v === "number" && (v > 0 || !isLog));
  const shown = series.flatMap((s) => finite(s.ys));
  const raw = series.flatMap((s) => finite(s.raw)).sort((a, b) => a - b);
  if (!shown.length) return isLog ? [0.1, 1] : [0, 1];
  // One wild first loss must not flatten the rest: of the raw points the outer percent may stick out.
  let low = Math.min(...extent(shown), raw[Math.floor(raw.length * 0.01)]);
  let high = Math.max(...extent(shown), raw[Math.ceil(raw.length * 0.99) - 1]);
  if (panel.zero) low = Math.min(0, low);
  if (low === high) { low -= Math.abs(low) * 0.1 || 0.5; high += Math.abs(high) * 0.1 || 0.5; }
  if (isLog) return [low / 1.1, high * 1.1];
  const pad = (high - low) * 0.06;
  return [panel.zero || low === 0 ? low : low - pad, panel.form === "percent" && high <= 1 ? Math.min(1, high + pad) : high + pad];
}
function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const v of values) { if (v < low) low = v; if (v > high) high = v; }
  return [low, high];
}

function line(s, x, y, ys) {
  let path = "", pen = "M";
  ys.forEach((v, i) => {
    if (typeof v !== "number" || !Number.isFinite(y(v))) { pen = "M"; return; } // a log axis has no place for 0
    path += `${pen}${x(s.xs[i]).toFixed(1)} ${y(v).toFixed(1)}`;
    pen = "L";
  });
  return path;
}

// Each row says how the time since the row before it was spent: a column as wide as that.
function stack(series, x, y) {
  const base = series.length ? series[0].ys.map(() => 0) : [];
  return series.map((s) => {
    const low = base.slice();
    s.ys.forEach((v, i) => { base[i] += v; });
    const columns = s.ys.map((v, i) => {
      const left = x(i ? s.xs[i - 1] : 0), right = x(s.xs[i]), gap = right - left > 6 ? 1 : 0;
      return v > 0 ? `M${left.toFixed(1)} ${y(low[i]).toFixed(1)}H${(right - gap).toFixed(1)}V${y(low[i] + v).toFixed(1)}H${left.toFixed(1)}Z` : "";
    });
    return `<path class="area" style="--color:${s.color}" d="${columns.join("")}"/>`;
  }).join("");
}

function draw(figure) {
  const panel = data.panels[+figure.dataset.panel], svg = figure.querySelector("svg");
  const width = svg.clientWidth, height = svg.clientHeight, series = seriesOf(panel), axis = AXES[view.axis];
  const isLog = view.log.has(panel.title), format = FORMATS[panel.form];
  const end = Math.max(...data.runs.flatMap((r, i) => (view.hidden.has(i) ? [0] : Object.values(r.series).map((c) => c[view.axis].at(-1) || 0))), 1e-9);
  const [low, high] = range(panel, series), scale = isLog ? Math.log : (v) => v;
  const x = (v) => MARGIN.left + (v / end) * (width - MARGIN.left - MARGIN.right);
  const y = (v) => height - MARGIN.bottom - ((scale(v) - scale(low)) / (scale(high) - scale(low))) * (height - MARGIN.top - MARGIN.bottom);
  const base = height - MARGIN.bottom;
  let out = `<clipPath id="clip${figure.dataset.panel}"><rect x="${MARGIN.left}" y="0" width="${width - MARGIN.left - MARGIN.right + 6}" height="${base}"/></clipPath>`;
  for (const v of isLog ? logTicks(low, high) : ticks(low, high, Math.max(3, height / 48), false)) {
    const text = panel.form === "percent" || panel.form === "stack" ? `${+(100 * v).toFixed(2)}%` : short(v);
    out += `<line class="grid" x1="${MARGIN.left}" x2="${width - MARGIN.right}" y1="${y(v)}" y2="${y(v)}"/><text x="${MARGIN.left - 8}" y="${y(v) + 4}" text-anchor="end">${text}</text>`;
  }
  out += `<line class="axis" x1="${MARGIN.left}" x2="${width - MARGIN.right}" y1="${base}" y2="${base}"/>`;
  for (const v of ticks(0, end, Math.max(3, width / 75), view.axis === "elapsed")) {
    const anchor = x(v) > width - 24 ? "end" : "middle";
    out += `<text x="${anchor === "end" ? width - MARGIN.right : x(v)}" y="${height - 6}" text-anchor="${anchor}">${axis.tick(v)}</text>`;
  }
  data.runs.forEach((run, index) => {
    if (view.hidden.has(index) || (panel.form === "stack" && index !== panel.run)) return;
    for (const r of run.restarts) {
      const at = x(r[view.axis]), tone = several ? ` style="stroke:${color(index)}"` : "";
      out += `<g><title>${escape(`attempt ${r.attempt} from step ${r.step}, after the one before was ${r.after}`)}</title>`;
      out += `<line class="restart"${tone} x1="${at}" x2="${at}" y1="${MARGIN.top}" y2="${base}"/><text x="${at}" y="${MARGIN.top - 3}" text-anchor="middle"${several ? ` style="fill:${color(index)}"` : ""}>\u21bb${several ? "" : ` ${r.attempt}`}</text></g>`;
    }
  });
  out += `<g clip-path="url(#clip${figure.dataset.panel})">`;
  if (panel.form === "stack") out += stack(series, x, y);
  else for (const s of series) {
    const tone = `style="--color:${s.color}"`;
    if (s.ys !== s.raw && !several) out += `<path class="raw" ${tone} d="${line(s, x, y, s.raw)}"/>`;
    out += `<path ${tone} stroke-width="${s.thin ? 1.2 : 2}"${s.thin ? ' stroke-dasharray="5 4" opacity="0.75"' : ""} d="${line(s, x, y, s.ys)}"/>`;
    s.raw.forEach((v, i) => {
      if (typeof v === "number" && Number.isFinite(y(v)) && s.raw.length <= (several ? 6 : FEW)) out += `<circle ${tone} r="${s.raw.length > 20 ? 2 : 3}" cx="${x(s.xs[i])}" cy="${y(v)}"/>`;
      if (v === "NaN") { const a = x(s.xs[i]); out += `<path class="broken" d="M${a - 4} ${MARGIN.top}l8 8m0 -8l-8 8"><title>not finite</title></path>`; }
    });
  }
  out += `</g><line class="cross" y1="${MARGIN.top}" y2="${base}" visibility="hidden"/>`;
  svg.innerHTML = out;
  figure.plot = { series, x, end, width, format, axis };
  if (!several || panel.form === "stack") {
    figure.querySelectorAll(".key b").forEach((b) => {
      const last = series.find((s) => s.label === b.dataset.metric)?.raw.findLast((v) => v !== null);
      b.textContent = last === undefined ? "" : last === "NaN" ? "not finite" : format(last);
    });
  }
}

function nearest(s, value) {
  let low = 0, high = s.xs.length - 1;
  while (high - low > 1) { const mid = (low + high) >> 1; if (s.xs[mid] < value) low = mid; else high = mid; }
  return Math.abs(s.xs[low] - value) <= Math.abs(s.xs[high] - value) ? low : high;
}

const figures = [...document.querySelectorAll("figure.panel")];
const redraw = () => figures.forEach(draw);

function point(figure, event) {
  const box = figure.querySelector("svg").getBoundingClientRect(), at = figure.plot;
  const share = (event.clientX - box.left - MARGIN.left) / (at.width - MARGIN.left - MARGIN.right);
  const value = Math.min(1, Math.max(0, share)) * at.end;
  for (const other of figures) {
    const cross = other.querySelector(".cross"), place = other.plot.x(value);
    cross.setAttribute("x1", place);
    cross.setAttribute("x2", place);
    cross.setAttribute("visibility", "visible");
  }
  const within = (s) => value <= s.xs.at(-1) + 0.02 * at.end; // a shorter run has no value here
  const rows = at.series.filter(within).map((s) => [s, nearest(s, value)]).map(([s, i]) =>
    `<div><span class="dot" style="--color:${s.color}"></span>${escape(s.name)}<b>${typeof s.raw[i] === "number" ? at.format(s.raw[i]) : s.raw[i] ? "not finite" : "-"}</b></div>`);
  let tip = figure.querySelector(".tip");
  if (!tip) { tip = document.createElement("div"); tip.className = "tip"; figure.append(tip); }
  tip.innerHTML = `<span class="muted">${at.axis.format(value)}</span>${rows.join("")}`;
  const left = at.x(value) + 24;
  tip.style.left = `${left + tip.offsetWidth > figure.clientWidth ? Math.max(4, left - tip.offsetWidth - 28) : left}px`;
  tip.style.top = "52px";
}
function leave() {
  document.querySelectorAll(".tip").forEach((tip) => tip.remove());
  document.querySelectorAll(".cross").forEach((cross) => cross.setAttribute("visibility", "hidden"));
}

for (const figure of figures) {
  const svg = figure.querySelector("svg"), log = figure.querySelector("button");
  svg.addEventListener("pointermove", (event) => point(figure, event));
  svg.addEventListener("pointerdown", (event) => point(figure, event));
  svg.addEventListener("pointerleave", leave);
  if (log) log.addEventListener("click", () => {
    const title = data.panels[+figure.dataset.panel].title, on = !view.log.has(title);
    if (on) view.log.add(title); else view.log.delete(title);
    log.setAttribute("aria-pressed", on);
    draw(figure);
  });
}
document.querySelectorAll("[data-axis]").forEach((button) => button.addEventListener("click", () => {
  view.axis = button.dataset.axis;
  document.querySelectorAll("[data-axis]").forEach((other) => other.setAttribute("aria-pressed", other === button));
  redraw();
}));
document.querySelectorAll("[data-run]").forEach((button) => button.addEventListener("click", () => {
  const index = +button.dataset.run, hide = !view.hidden.has(index);
  if (hide) view.hidden.add(index); else view.hidden.delete(index);
  button.setAttribute("aria-pressed", !hide);
  redraw();
}));
document.getElementById("smooth")?.addEventListener("input", (event) => { view.smooth = +event.target.value; redraw(); });
document.querySelector(".theme").addEventListener("click", () => {
  const root = document.documentElement, dark = getComputedStyle(root).colorScheme === "dark" ||
    (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = dark ? "light" : "dark";
});

// A page of a running run reloads itself: it comes back as one left it, and says how old it is.
const KEPT = `distcls ${location.pathname}`;
function keep() {
  try { sessionStorage.setItem(KEPT, JSON.stringify({ axis: view.axis, smooth: view.smooth, theme: document.documentElement.dataset.theme })); } catch { /* a browser that keeps nothing */ }
}
function restore() {
  let kept = null;
  try { kept = JSON.parse(sessionStorage.getItem(KEPT)); } catch { /* as above */ }
  if (!kept) return;
  if (kept.theme) document.documentElement.dataset.theme = kept.theme;
  view.smooth = kept.smooth;
  const slider = document.getElementById("smooth");
  if (slider) slider.value = kept.smooth;
  document.querySelector(`[data-axis="${kept.axis}"]`)?.click();
}
function age() {
  document.querySelectorAll("time[datetime]").forEach((time) => {
    const seconds = (Date.now() - new Date(time.dateTime)) / 1000;
    let ago = time.nextElementSibling;
    if (ago?.className !== "ago") time.after(ago = Object.assign(document.createElement("span"), { className: "ago" }));
    ago.textContent = seconds < 5 ? " (now)" : ` (${clock(seconds)} ago)`;
  });
}
restore();
addEventListener("pagehide", keep);
age();
setInterval(age, 10000);

redraw();
new ResizeObserver(() => requestAnimationFrame(redraw)).observe(document.querySelector(".panels") || document.body);
