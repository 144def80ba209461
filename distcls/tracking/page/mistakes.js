// The worst images and the table of classes: data.predictions is the last evaluation's.
const percent = (share) => `${(100 * share).toFixed(1)} %`;

if (data.predictions && document.getElementById("class-table")) {
  const { classes, pairs, worst, multi_label: severalLabels } = data.predictions;
  const names = classes.name, MOST = 300; // rows drawn before one asks for the rest

  // Most often taken for: the pairs come with the most frequent first.
  const takenFor = new Map();
  for (const [label, best, times] of pairs) if (!takenFor.has(label)) takenFor.set(label, [best, times]);
  const share = (part, whole) => (whole ? part / whole : null);
  const rows = names.map((name, i) => {
    const recall = share(classes.right[i], classes.images[i]), precision = share(classes.right[i], classes.predicted[i]);
    const both = classes.images[i] + classes.predicted[i];
    return { i, name, recall, precision, images: classes.images[i], f1: share(2 * classes.right[i], both), ap: classes.ap?.[i] ?? null, taken: takenFor.get(i)?.[1] ?? 0 };
  });

  const plain = (v) => (v === null ? "-" : percent(v));
  const bar = (v) => (v === null ? "-" : `<span class="meter"><i style="width:${(100 * v).toFixed(1)}%"></i></span>${percent(v)}`);
  const columns = [
    { key: "name", title: "class", cell: (r) => escape(r.name) },
    { key: "recall", title: severalLabels ? "recall" : "accuracy", num: true, cell: (r) => bar(r.recall) },
    { key: "images", title: "images", num: true, cell: (r) => r.images.toLocaleString("en") },
    { key: "precision", title: "precision", num: true, cell: (r) => plain(r.precision) },
    { key: "f1", title: "F1", num: true, cell: (r) => plain(r.f1) },
    ...(classes.ap ? [{ key: "ap", title: "AP", num: true, cell: (r) => plain(r.ap) }] : []),
    ...(severalLabels ? [] : [{ key: "taken", title: "most often taken for", cell: (r) => {
      const found = takenFor.get(r.i);
      return found ? `<button class="link" data-focus="${r.i}">${escape(names[found[0]])}</button> <span class="muted">${found[1].toLocaleString("en")}</span>` : '<span class="muted">-</span>';
    } }]),
  ];
  const table = document.getElementById("class-table"), search = document.getElementById("search"), hits = document.getElementById("hits");
  const order = { key: "recall", down: false, all: false };

  function fill() {
    const wanted = search.value.trim().toLowerCase();
    const found = rows.filter((r) => r.name.toLowerCase().includes(wanted));
    const sign = order.down ? -1 : 1;
    found.sort((a, b) => {
      const [x, y] = [a[order.key], b[order.key]];
      if (x === null || y === null) return (x === null) - (y === null); // a class without images comes last
      return sign * (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y) || a.i - b.i;
    });
    const shown = order.all ? found : found.slice(0, MOST);
    table.tHead.innerHTML = `<tr>${columns.map((c) => `<th class="sort${c.num ? " num" : ""}" aria-sort="${order.key !== c.key ? "none" : order.down ? "descending" : "ascending"}"><button data-sort="${c.key}">${c.title}</button></th>`).join("")}</tr>`;
    table.tBodies[0].innerHTML = shown.map((r) => `<tr>${columns.map((c) => `<td${c.num ? " class=num" : ""}>${c.cell(r)}</td>`).join("")}</tr>`).join("");
    const rest = found.length - shown.length;
    hits.innerHTML = rest ? `${shown.length} of ${found.length.toLocaleString("en")} <button class="link" id="all-classes">show all</button>` : wanted ? `${found.length.toLocaleString("en")} found` : "";
    document.getElementById("all-classes")?.addEventListener("click", () => { order.all = true; fill(); });
  }
  table.addEventListener("click", (event) => {
    const key = event.target.dataset.sort;
    if (key) { order.down = order.key === key ? !order.down : key === "images" || key === "taken"; order.key = key; fill(); }
  });
  search.addEventListener("input", fill);
  fill();

  // A worst image from close up: what else the model thought of.
  const closeup = document.getElementById("closeup");
  document.querySelectorAll(".shot").forEach((shot) => shot.addEventListener("click", () => {
    const one = worst[+shot.dataset.worst], picture = shot.querySelector("img");
    const guesses = one.guesses.map(([best, score]) =>
      `<li class="${one.labels.includes(best) ? "good" : ""}"><span>${escape(names[best])}</span><b>${percent(score)}</b><i style="width:${(100 * score).toFixed(1)}%"></i></li>`);
    closeup.innerHTML = `<form method="dialog"><button aria-label="close">×</button></form>${picture ? picture.outerHTML : ""}` +
      `<h3>${escape(one.labels.map((l) => names[l]).join(", ") || "no class")}</h3><p class="muted">is its label; loss ${one.loss.toFixed(3)}. The model's guesses:</p>` +
      `<ol>${guesses.join("")}</ol><p class="muted place">${escape(one.place)}</p>`;
    closeup.showModal();
  }));
  closeup.addEventListener("click", (event) => { if (event.target === closeup) closeup.close(); });
  document.getElementById("all-worst")?.addEventListener("click", (event) => {
    document.querySelectorAll(".shot.more").forEach((shot) => shot.classList.remove("more"));
    event.target.remove();
  });
}
