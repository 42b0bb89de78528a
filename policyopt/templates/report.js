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

  /* Charts: those of a closed section are drawn when it opens, for until then they have no size. */
  const drawn = new Set();
  const drawAll = () => data.charts.forEach((chart) => {
    const box = document.querySelector(`[data-chart="${chart.id}"]`);
    if (!box || drawn.has(chart.id) || box.closest("details:not([open])")) return;
    drawn.add(chart.id);
    drawChart(box, chart);
  });
  drawAll();
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

  const strongest = weighedTokens.strongest(data.samples.flatMap((s) => s.weights || []));
  get("scale").hidden = !strongest;
  get("least").textContent = `w = ${number(-strongest)}`.replace("-", "−");
  get("most").textContent = number(strongest);

  const block = (title, node, readout) => {
    const part = make("div");
    const head = make("div", "texts-head");
    head.append(make("h4", "", title), readout || "");
    part.append(head, node);
    return part;
  };

  const weighed = (s) => (s.weights || []).some((w) => w);
  const outcome = (s) => (!s.rewarded ? "none" : s.correct ? "right" : "wrong");

  const body = (s) => {
    const texts = make("div", "texts");
    const prompt = make("div", "text", s.prompt);
    prompt.tabIndex = 0;
    prompt.setAttribute("role", "group");
    prompt.setAttribute("aria-label", "Prompt");
    texts.append(block("Prompt", prompt));
    const readout = make("p", "readout");
    readout.setAttribute("role", "status");
    let response;
    if (s.pieces) response = weighedTokens.box(s, strongest, readout);
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
    if (!s.id) return [texts, judged];
    const line = make("p"), same = make("button", "same", "Every response to this prompt");
    same.type = "button";
    same.addEventListener("click", () => {
      fields.phase.value = fields.correct.value = fields.step.value = "";
      fields.text.value = s.id;
      refresh();
    });
    line.append(same);
    return [texts, judged, line];
  };

  const card = (s) => {
    const node = make("details", "sample");
    const head = make("summary", "sample-head");
    const shown = { right: "✓ right", wrong: "✗ wrong", none: s.failed ? "! judge failed" : "– no reward" };
    const facts = [`${names[s.phase] || s.phase}${s.step === null ? "" : `, step ${s.step}`}`];
    if (s.rewarded) facts.push(`reward ${number(s.reward)}`);
    if (s.length !== null) facts.push(`${s.length} tokens${s.truncated ? ", truncated" : ""}`);
    if (weighed(s)) facts.push("trained on");
    if (s.id) facts.push(s.id);
    head.append(make("h3", outcome(s), shown[outcome(s)]), ...facts.map((fact) => make("span", "", fact)));
    node.append(head);
    /* What is inside is made when somebody looks. */
    node.addEventListener("toggle", () => { if (node.open && node.children.length === 1) node.append(...body(s)); });
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
    const cards = shown.map(card), first = cards[Math.max(0, shown.findIndex(weighed))];
    if (first) first.open = true;
    list.replaceChildren(...cards);
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
    if (next) next.firstChild.focus();
  });
  /* What was learned from is what to read first. */
  if (data.samples.some((s) => s.phase === "train" && weighed(s))) fields.phase.value = "train";
  show();
})();
