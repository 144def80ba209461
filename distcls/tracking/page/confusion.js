// The confusion matrix on a canvas: all classes to see where mistakes gather, or one class among those it is confused
// with, with names and numbers. One may zoom, drag and point; a mistake is never smaller than two pixels.
if (data.predictions && document.getElementById("matrix")) {
  const { classes, pairs } = data.predictions, names = classes.name, NEIGHBOURS = 14, LISTED = 60, NAMED = 11;
  const canvas = document.getElementById("matrix"), pen = canvas.getContext("2d"), focus = document.getElementById("focus");
  const caption = document.querySelector(".map .caption"), list = document.querySelector("ol.pairs");
  const each = names.map((_, i) => i);
  // shown: the classes in view; scale: pixels per class; left, top: of the matrix's corner, from the margin
  const at = { shown: each, place: new Map(), scale: 1, left: 0, top: 0, width: 0, height: 0, gutter: 0, under: 0, around: null, point: null };
  let cells = [];

  function choose(around) {
    at.around = around;
    if (around === null) at.shown = each;
    else {
      const near = new Map();
      for (const [label, best, times] of pairs) {
        if (label === around) near.set(best, (near.get(best) || 0) + times);
        if (best === around) near.set(label, (near.get(label) || 0) + times);
      }
      const most = [...near].sort((a, b) => b[1] - a[1]).slice(0, NEIGHBOURS).map(([i]) => i);
      at.shown = [around, ...most];
    }
    at.place = new Map(at.shown.map((i, place) => [i, place]));
    cells = pairs.filter(([label, best]) => at.place.has(label) && at.place.has(best)).reverse(); // the frequent on top
    fit();
  }

  function fit() {
    const ratio = devicePixelRatio || 1, box = canvas.clientWidth;
    const few = at.shown.length <= 40;
    pen.font = `${NAMED}px system-ui, sans-serif`;
    const longest = few ? Math.max(...at.shown.map((i) => pen.measureText(names[i]).width)) : 0;
    at.gutter = few ? Math.min(longest + 10, box * 0.3) : 4;
    at.under = few ? Math.min(longest + 10, 110) : 4;
    const side = box - at.gutter - 1;
    canvas.style.height = `${side + at.under + 1}px`;
    canvas.width = box * ratio;
    canvas.height = (side + at.under + 1) * ratio;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    Object.assign(at, { width: side, height: side, least: side / at.shown.length, scale: side / at.shown.length, left: 0, top: 0 });
    paint();
  }

  function zoom(factor, x = at.width / 2, y = at.height / 2) {
    const scale = Math.min(Math.max(at.scale * factor, at.least), Math.max(56, at.least));
    at.left = x - ((x - at.left) * scale) / at.scale;
    at.top = y - ((y - at.top) * scale) / at.scale;
    at.scale = scale;
    hold();
  }
  function hold() { // the matrix fills its frame
    const side = at.scale * at.shown.length;
    at.left = Math.min(0, Math.max(at.left, at.width - side));
    at.top = Math.min(0, Math.max(at.top, at.height - side));
    canvas.style.touchAction = at.scale > at.least * 1.01 ? "none" : "pan-y";
    paint();
  }

  // What light-dark() comes to, as a colour that a canvas takes.
  function resolved(name) {
    const probe = resolved.probe ||= document.body.appendChild(Object.assign(document.createElement("i"), { hidden: true }));
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  }

  function paint() {
    const { scale, left, top, width, height, gutter } = at, mark = Math.max(scale, 2);
    const [right, wrong, ink, muted, line, card] = ["--c0", "--c1", "--ink", "--muted", "--line", "--card"].map(resolved);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.save();
    pen.beginPath();
    pen.rect(gutter, 0, width, height);
    pen.clip();
    const cell = (row, column, share, color) => {
      const x = gutter + left + column * scale, y = top + row * scale;
      if (x < gutter - mark || y < -mark || x > gutter + width || y > height) return;
      pen.globalAlpha = Math.sqrt(Math.min(1, share));
      pen.fillStyle = color;
      pen.fillRect(x - (mark - scale) / 2, y - (mark - scale) / 2, mark - (scale > 8 ? 1 : 0), mark - (scale > 8 ? 1 : 0));
      if (scale < 24) return null;
      pen.globalAlpha = 1;
      return [x + scale / 2, y + scale / 2];
    };
    const number = (place, times, share) => {
      if (!place) return;
      pen.fillStyle = share > 0.35 ? card : ink;
      pen.fillText(times < 10000 ? times : `${Math.round(times / 1000)}k`, ...place);
    };
    pen.font = `${Math.min(13, Math.max(10, scale / 3))}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    for (const [label, best, times] of cells) {
      const share = (2 * times) / classes.images[label];
      number(cell(at.place.get(label), at.place.get(best), share, wrong), times, share);
    }
    at.shown.forEach((i, place) => { // after the mistakes, which else hide the diagonal of many classes
      const share = classes.images[i] ? classes.right[i] / classes.images[i] : 0;
      number(share ? cell(place, place, share, right) : null, classes.right[i], share);
    });
    pen.globalAlpha = 1;
    if (at.point) { // the row and the column that one points at
      pen.fillStyle = muted;
      pen.globalAlpha = 0.35;
      pen.fillRect(gutter, at.point.y, width, 1);
      pen.fillRect(gutter + at.point.x, 0, 1, height);
      pen.globalAlpha = 1;
    }
    pen.restore();
    pen.strokeStyle = line;
    pen.strokeRect(gutter + 0.5, 0.5, width - 1, height - 1);
    if (at.shown.length <= 40) edges(ink, muted);
    describe();
  }

  function edges(ink, muted) {
    const cut = (text, room) => {
      if (pen.measureText(text).width <= room) return text;
      let end = text.length;
      while (end && pen.measureText(`${text.slice(0, end)}…`).width > room) end--;
      return `${text.slice(0, end)}…`;
    };
    pen.font = `${NAMED}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    at.shown.forEach((i, place) => {
      const y = at.top + (place + 0.5) * at.scale, x = at.left + (place + 0.5) * at.scale;
      pen.fillStyle = i === at.around ? ink : muted;
      if (y > 4 && y < at.height - 2) pen.fillText(cut(names[i], at.gutter - 8), at.gutter - 6, y);
      if (x > 4 && x < at.width - 2) {
        pen.save();
        pen.translate(at.gutter + x, at.height + 6);
        pen.rotate(-Math.PI / 2);
        pen.fillText(cut(names[i], at.under - 8), 0, 0);
        pen.restore();
      }
    });
  }

  // What lies under the pointer; where classes are thinner than a finger, the nearest mistake.
  function under(x, y) {
    const row = Math.floor((y - at.top) / at.scale), column = Math.floor((x - at.left) / at.scale);
    if (row < 0 || column < 0 || row >= at.shown.length || column >= at.shown.length) return null;
    const reach = Math.max(0.5, 7 / at.scale);
    let found = null, nearest = reach * reach;
    if (at.scale < 8) {
      for (const pair of cells) {
        const dy = at.place.get(pair[0]) - (y - at.top) / at.scale + 0.5, dx = at.place.get(pair[1]) - (x - at.left) / at.scale + 0.5;
        if (dx * dx + dy * dy <= nearest) { nearest = dx * dx + dy * dy; found = pair; }
      }
      if (found) return found;
    }
    const label = at.shown[row], best = at.shown[column];
    if (label === best) return [label, best, classes.right[label]];
    return cells.find((pair) => pair[0] === label && pair[1] === best) || [label, best, 0];
  }

  function describe() {
    const found = at.point && under(at.point.x, at.point.y);
    if (found) {
      const [label, best, times] = found, of = classes.images[label];
      const text = label === best ? `<b>${escape(names[label])}</b>: right` : `<b>${escape(names[label])}</b> taken for <b>${escape(names[best])}</b>`;
      caption.innerHTML = `${text} ${times.toLocaleString("en")} of ${of.toLocaleString("en")}${of ? `, ${percent(times / of)}` : ""}`;
    } else if (at.around !== null) caption.innerHTML = `<b>${escape(names[at.around])}</b> and the classes that it is most confused with`;
    else caption.textContent = "Rows are labels, columns predictions; blue is right, orange wrong. Click a class, or pinch or Ctrl-scroll to zoom.";
  }

  const spot = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left - at.gutter, y: event.clientY - box.top };
  };
  const held = new Map();
  let moved = 0, apart = 0;
  canvas.addEventListener("pointerdown", (event) => {
    held.set(event.pointerId, spot(event));
    canvas.setPointerCapture(event.pointerId);
    moved = held.size > 1 ? 99 : 0;
    apart = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const here = spot(event), before = held.get(event.pointerId);
    if (before && held.size === 2) { // two fingers
      held.set(event.pointerId, here);
      const [a, b] = [...held.values()], now = Math.hypot(a.x - b.x, a.y - b.y);
      if (apart) zoom(now / apart, (a.x + b.x) / 2, (a.y + b.y) / 2);
      apart = now;
      return;
    }
    if (before) {
      moved += Math.abs(here.x - before.x) + Math.abs(here.y - before.y);
      at.left += here.x - before.x;
      at.top += here.y - before.y;
      held.set(event.pointerId, here);
    }
    at.point = here.x >= 0 && here.y <= at.height ? here : null;
    hold();
  });
  const release = (event) => { held.delete(event.pointerId); apart = 0; };
  canvas.addEventListener("pointerup", (event) => {
    release(event);
    const found = moved < 6 && under(spot(event).x, spot(event).y);
    if (found && at.shown.length > NEIGHBOURS + 1) select(found[0]);
    else { at.point = event.pointerType === "mouse" ? at.point : spot(event); paint(); }
  });
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => { at.point = null; paint(); });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 200), spot(event).x, spot(event).y);
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoom(2.5, spot(event).x, spot(event).y));

  function select(around) {
    focus.value = around === null ? "" : names[around];
    document.getElementById("whole").disabled = around === null;
    choose(around);
  }
  focus.addEventListener("input", () => {
    const found = names.indexOf(focus.value);
    if (found >= 0) select(found);
  });
  document.getElementById("whole").addEventListener("click", () => select(null));
  document.getElementById("closer").addEventListener("click", () => zoom(1.6));
  document.getElementById("farther").addEventListener("click", () => zoom(1 / 1.6));
  document.addEventListener("click", (event) => {
    if (event.target.closest?.("[data-focus]")) {
      select(+event.target.closest("[data-focus]").dataset.focus);
      document.getElementById("confusion").scrollIntoView({ behavior: "smooth" });
    }
  });

  const options = document.body.appendChild(Object.assign(document.createElement("datalist"), { id: "names" }));
  options.innerHTML = names.map((name) => `<option value="${escape(name)}">`).join("");
  list.innerHTML = pairs.slice(0, LISTED).map(([label, best, times]) =>
    `<li><button data-focus="${label}"><span>${escape(names[label])} <i>taken for</i> ${escape(names[best])}</span>` +
    `<span class="muted">${times.toLocaleString("en")} of ${classes.images[label].toLocaleString("en")}</span>` +
    `<i class="share" style="width:${(100 * times) / pairs[0][2]}%"></i></button></li>`).join("") || '<li class="muted none">No image was confused.</li>';
  new ResizeObserver(() => { if (Math.abs(canvas.clientWidth - at.gutter - 1 - at.width) > 1) fit(); }).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  document.querySelector(".theme").addEventListener("click", () => requestAnimationFrame(paint));
  select(null);
}
