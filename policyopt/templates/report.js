"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const get = (id) => document.getElementById(id);
  const PAGE = 12;

  /* An element with text. Text only ever enters the page through textContent: what a model wrote is never markup. */
  const make = (tag, cls, text) => {
    const node = document.createElement(tag);
    if (cls) node.className = cls;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  /* Charts */
  const probe = make("span");
  probe.hidden = true;
  document.body.append(probe);
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const drawn = new Map();
  const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("%{", "% {");
  const wide = window.matchMedia("(hover: hover)");

  const trace = (s, chart) => {
    const c = colour(s.colour);
    const value = { percent: "%{y:.1%}", seconds: "%{y:.2f} s", integer: "%{y:,.0f}", number: "%{y:.4~g}" }[chart.format];
    const common = { x: s.x, y: s.y, name: plain(s.name), hovertemplate: value, showlegend: false };
    if (s.style === "stack") return { ...common, type: "bar", marker: { color: c, line: { width: 0 } } };
    if (s.style === "overlay") return { ...common, type: "bar", opacity: 0.62, marker: { color: c, line: { width: 0 } } };
    const few = s.x.length <= 12 && s.style !== "area";
    const points = s.style === "points" || few;
    const line = { color: c, width: s.style === "faint" ? 1 : s.style === "line" || s.style === "area" ? 2 : 1.5 };
    if (s.style === "dash") line.dash = "dot";
    return {
      ...common, type: "scatter", mode: points ? "lines+markers" : "lines", line,
      marker: { color: c, size: s.style === "points" && s.x.length <= 25 ? 7 : 4 },
      opacity: s.style === "faint" ? 0.3 : 1,
      fill: s.style === "area" ? "tozeroy" : "none",
      hoverinfo: s.style === "faint" ? "skip" : undefined,
      ...(s.style === "faint" ? { hovertemplate: undefined } : {}),
    };
  };

  const layout = (chart) => {
    const axis = {
      gridcolor: colour("line"), zerolinecolor: colour("line"), linecolor: colour("line"), automargin: true, exponentformat: "power",
      tickfont: { size: 11 }, tickcolor: colour("line"),
    };
    const stacked = chart.series.some((s) => s.style === "stack");
    const y = { ...axis, nticks: 6, rangemode: chart.log ? "normal" : "tozero" };
    if (chart.format === "percent") y.tickformat = ".2~%";
    if (chart.log) {
      /* Whole powers of ten: between them a logarithmic axis writes lone digits that nobody can read. */
      const logs = chart.series.flatMap((s) => s.y).map(Math.log10);
      const range = [Math.floor(Math.min(...logs)), Math.ceil(Math.max(...logs) + 1e-9)];
      Object.assign(y, { type: "log", range, dtick: Math.ceil((range[1] - range[0]) / 5) });
    }
    return {
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("muted") },
      paper_bgcolor: colour("surface"), plot_bgcolor: colour("surface"),
      margin: { l: 8, r: 8, t: 12, b: 8 }, autosize: true,
      hovermode: "x unified", dragmode: wide.matches ? "zoom" : false,
      hoverlabel: { bgcolor: colour("surface"), bordercolor: colour("line"), font: { color: colour("text"), size: 12 } },
      barmode: stacked ? "stack" : "overlay", bargap: stacked && chart.series[0].x.length > 40 ? 0 : 0.08,
      xaxis: { ...axis, showgrid: false, zeroline: false, nticks: 7, title: { text: chart.x_title, font: { size: 11 }, standoff: 6 },
        spikethickness: 1, spikedash: "solid", spikecolor: colour("grey"), hoverformat: ",.0f",
        unifiedhovertitle: { text: chart.x_title === "step" ? "step %{x}" : "%{x} tokens" } },
      yaxis: y,
    };
  };

  const draw = (chart) => {
    const node = document.querySelector(`[data-chart="${chart.id}"]`);
    if (!node || node.closest("details:not([open])")) return;
    const config = { displayModeBar: false, responsive: true, showTips: false };
    Plotly.react(node, chart.series.map((s) => trace(s, chart)), layout(chart), config);
    drawn.set(chart.id, true);
  };
  const drawAll = () => data.charts.forEach(draw);
  drawAll();
  document.addEventListener("theme", drawAll);
  const others = get("others");
  if (others) others.addEventListener("toggle", drawAll);

  /* Samples */
  const list = get("list");
  if (!list) return;
  const fields = { phase: get("f-phase"), correct: get("f-correct"), step: get("f-step"), text: get("f-text") };
  const names = { before: "before training", train: "in training", eval: "evaluation", after: "after training" };
  const number = (x) => (x === null ? "–" : Number.isInteger(x) ? String(x) : x.toPrecision(3));
  let limit = PAGE;

  const option = (select, value, text) => {
    const node = make("option", "", text);
    node.value = value;
    select.append(node);
  };
  const order = ["before", "train", "eval", "after"];
  const place = (p) => (order.includes(p) ? order.indexOf(p) : order.length);
  [...new Set(data.samples.map((s) => s.phase))].sort((a, b) => place(a) - place(b))
    .forEach((p) => option(fields.phase, p, names[p] || p));
  [...new Set(data.samples.map((s) => s.step))].filter((s) => s !== null).sort((a, b) => a - b)
    .forEach((s) => option(fields.step, String(s), String(s)));

  const weights = data.samples.flatMap((s) => s.weights || []).filter((w) => w !== null).map(Math.abs).sort((a, b) => a - b);
  /* The strongest colour is at the 98th percentile, so that one outlier does not bleach all others. */
  const strongest = weights.length ? weights[Math.floor(0.98 * (weights.length - 1))] || weights[weights.length - 1] : 0;
  get("scale").hidden = !strongest;

  const tint = (w) => {
    if (!w || !strongest) return "";
    const share = Math.round(6 + 44 * Math.min(1, Math.abs(w) / strongest));
    return `color-mix(in srgb, var(--${w > 0 ? "main" : "second"}) ${share}%, transparent)`;
  };

  const tokens = (sample, readout) => {
    const box = make("div", "text");
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Response, tokens coloured by weight. Arrow keys read the weights.");
    const spans = sample.pieces.map((piece, i) => {
      const w = sample.weights[i];
      const span = make("span", "", piece);
      span.style.background = tint(w);
      span.title = `w = ${w === null ? "none" : w}`;
      return span;
    });
    box.append(...spans);
    let at = -1;
    const select = (i) => {
      if (at >= 0) spans[at].classList.remove("current");
      at = i;
      if (at < 0) { readout.textContent = ""; return; }
      spans[at].classList.add("current");
      spans[at].scrollIntoView({ block: "nearest" });
      const w = sample.weights[at];
      readout.textContent = `token ${at + 1} of ${spans.length}, ${JSON.stringify(sample.pieces[at])}: w = ${w === null ? "none" : w}`;
    };
    box.addEventListener("keydown", (e) => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
      if (!move) return;
      e.preventDefault();
      select(Math.max(0, Math.min(spans.length - 1, at + move)));
    });
    box.addEventListener("click", (e) => select(spans.indexOf(e.target)));
    box.addEventListener("blur", () => select(-1));
    return box;
  };

  const block = (title, node, readout) => {
    const part = make("div");
    const head = make("div", "texts-head");
    head.append(make("h4", "", title), readout || "");
    part.append(head, node);
    return part;
  };

  const outcome = (s) => (!s.rewarded ? "none" : s.correct ? "right" : "wrong");

  const card = (s) => {
    const node = make("article", "sample");
    const head = make("div", "sample-head");
    const shown = { right: "✓ right", wrong: "✗ wrong", none: "– no reward" };
    head.append(make("h3", outcome(s), shown[outcome(s)]));
    head.append(make("span", "", `${names[s.phase] || s.phase}${s.step === null ? "" : `, step ${s.step}`}`));
    if (s.rewarded) head.append(make("span", "", `reward ${number(s.reward)}`));
    if (s.length !== null) head.append(make("span", "", `${s.length} tokens${s.truncated ? ", truncated" : ""}`));
    if (s.id) {
      const id = make("button", "id", s.id);
      id.type = "button";
      id.title = "Show every response to this prompt";
      id.addEventListener("click", () => {
        fields.phase.value = fields.correct.value = fields.step.value = "";
        fields.text.value = s.id;
        refresh();
      });
      head.append(id);
    }
    const texts = make("div", "texts");
    const prompt = make("div", "text", s.prompt);
    prompt.tabIndex = 0;
    prompt.setAttribute("role", "group");
    prompt.setAttribute("aria-label", "Prompt");
    texts.append(block("Prompt", prompt));
    const readout = make("p", "readout");
    readout.setAttribute("role", "status");
    let response;
    if (s.pieces) response = tokens(s, readout);
    else {
      response = make("div", "text", s.response);
      response.tabIndex = 0;
      response.setAttribute("role", "group");
      response.setAttribute("aria-label", "Response");
    }
    texts.append(block("Response", response, readout));
    const judged = make("dl", "judged");
    judged.append(make("dt", "", "Reference"), make("dd", "", s.answer || "–"));
    if (s.reason) judged.append(make("dt", "", "Judge"), make("dd", "", s.reason));
    node.append(head, texts, judged);
    return node;
  };

  const ids = new Set(data.samples.map((s) => s.id));
  const contains = (s) => {
    const text = fields.text.value;
    /* A whole id means that prompt alone: "sum-1" is not "sum-10". */
    if (ids.has(text)) return !text || s.id === text;
    return [s.id, s.prompt, s.response, s.answer].some((t) => t.toLowerCase().includes(text.toLowerCase()));
  };
  const matches = (s) => {
    return (!fields.phase.value || s.phase === fields.phase.value)
      && (!fields.correct.value || outcome(s) === fields.correct.value)
      && (!fields.step.value || String(s.step) === fields.step.value)
      && contains(s);
  };

  const show = () => {
    const found = data.samples.filter(matches);
    const shown = found.slice(0, limit);
    list.replaceChildren(...shown.map(card));
    get("count").textContent = found.length
      ? `Showing ${shown.length} of ${found.length} ${found.length === 1 ? "sample" : "samples"}.`
      : "No sample fits these filters.";
    get("more").hidden = found.length <= limit;
  };
  const refresh = () => { limit = PAGE; show(); };
  Object.values(fields).forEach((f) => f.addEventListener("input", refresh));
  get("more").addEventListener("click", () => {
    const first = limit;
    limit += PAGE;
    show();
    const next = list.children[first];
    if (next) { next.tabIndex = -1; next.focus(); }
  });
  show();
})();
