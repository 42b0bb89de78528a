/* Draws one chart as SVG into a box: axes, curves or bars, and the values under the pointer. Returns how to draw another there. */
const drawChart = (() => {
  const NS = "http://www.w3.org/2000/svg";
  const svg = (tag, attributes, ...inside) => {
    const node = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...inside);
    return node;
  };
  const html = (tag, cls, text) => {
    const node = document.createElement(tag);
    node.className = cls;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  const power = (k) => `10${[...String(k)].map((c) => RAISED[c]).join("")}`;
  const minus = (text) => text.replace("-", "−");

  /* A value in full, for the reader of one point. */
  const told = (v, format) => {
    if (format === "percent") return `${minus((100 * v).toFixed(1))} %`;
    if (format === "seconds") return `${minus(v.toFixed(2))} s`;
    if (format === "integer") return minus(v.toLocaleString("en", { maximumFractionDigits: 0 }));
    const size = Math.abs(v);
    return minus(size && (size < 1e-3 || size >= 1e6) ? v.toExponential(2) : String(Number(v.toPrecision(4))));
  };

  const bare = (v, format) => told(v, format).split(" ")[0];

  /* About so many round numbers that cover an interval. */
  const ticks = (low, high, count, whole) => {
    const raw = (high - low) / count, base = 10 ** Math.floor(Math.log10(raw));
    let step = [1, 2, 5, 10].find((m) => m * base >= raw * 0.999) * base;
    if (whole) step = Math.max(1, Math.round(step));
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step || 0);
    return { step, found };
  };
  const tick = (v, step, format) => {
    const scale = format === "percent" ? 100 : 1;
    const digits = Math.max(0, -Math.floor(Math.log10(step * scale) + 1e-9));
    const shown = v * scale;
    const text = digits > 4 || Math.abs(shown) >= 1e6 ? (shown ? shown.toExponential(1) : "0")
      : shown.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    return minus(text) + (format === "percent" ? " %" : "");
  };

  const scales = (chart, width, height) => {
    const bars = chart.series.some((s) => s.style === "stack" || s.style === "overlay");
    const stacked = chart.series.some((s) => s.style === "stack");
    const xs = [...new Set(chart.series.flatMap((s) => s.x))].sort((a, b) => a - b);
    let ys = chart.series.flatMap((s) => s.y);
    /* Bands may end outside: the axis is made for the curves, with as much room again for what is uncertain about them. */
    const least = Math.min(...ys), most = Math.max(...ys), spare = chart.named ? Infinity : most - least || Infinity;
    const ends = chart.series.flatMap((s) => [...s.low, ...s.high]).map((v) => Math.max(least - spare, Math.min(most + spare, v)));
    ys = [...ys, ...ends];
    if (stacked) ys = xs.map((_, i) => chart.series.reduce((sum, s) => sum + (s.y[i] || 0), 0));
    let low = Math.min(...ys), high = Math.max(...ys), marks, y;
    if (chart.log) {
      low = Math.floor(Math.log10(low));
      high = Math.max(low + 1, Math.ceil(Math.log10(high) - 1e-9));
      const every = Math.ceil((high - low) / 5);
      marks = [];
      for (let k = low; k <= high; k += every) marks.push([10 ** k, power(k)]);
      y = Math.log10;
    } else {
      if (chart.zero) {
        low = Math.min(0, low);
        high = Math.max(0, high);
      }
      if (low === high) high = low + 1;
      const { step, found } = ticks(low, high, 5, false);
      high = Math.max(high + (high > 0 ? 0.04 : 0) * (high - low), found[found.length - 1]);
      low -= low < 0 || !chart.zero ? 0.04 * (high - low) : 0;
      marks = found.map((v) => [v, tick(v, step, chart.format)]);
      y = (v) => v;
    }
    const gaps = xs.slice(1).map((x, i) => x - xs[i]);
    const gap = gaps.length ? Math.min(...gaps) : 1;
    const pad = bars ? gap / 2 : xs.length > 1 ? 0 : 0.5;
    const left = 14 + 6.4 * Math.max(...marks.map(([, text]) => text.length)), right = width - 12, top = 22, bottom = height - 36;
    const across = [...xs, ...chart.series.flatMap((s) => [...s.left, ...s.right])], first = Math.min(...across), last = Math.max(...across);
    const room = chart.named ? 0.12 * (last - first) : 0, x0 = first - pad - room, x1 = last + pad + room;
    return {
      xs, marks, gap, left, right, top, bottom, x0, x1,
      X: (v) => left + ((v - x0) / (x1 - x0)) * (right - left),
      Y: (v) => bottom - ((y(v) - low) / (high - low)) * (bottom - top),
    };
  };

  const path = (s, at) => s.x.map((x, i) => `${i ? "L" : "M"}${at.X(x).toFixed(1)} ${at.Y(s.y[i]).toFixed(1)}`).join("");

  const curves = (s, at) => {
    const cls = `s ${s.style} c-${s.colour}`, line = path(s, at), found = [];
    if (s.style === "area") {
      const zero = at.Y(0), first = at.X(s.x[0]), last = at.X(s.x[s.x.length - 1]);
      found.push(svg("path", { class: `fill c-${s.colour}`, d: `${line}L${last} ${zero}L${first} ${zero}Z` }));
    }
    found.push(svg("path", { class: `line ${cls}`, d: line }));
    const r = s.style === "points" ? (s.x.length <= 25 ? 3.5 : 2) : s.x.length <= 12 && s.style !== "area" ? 2.2 : 0;
    if (r) found.push(...s.x.map((x, i) => svg("circle", { class: `mark ${cls}`, cx: at.X(x), cy: at.Y(s.y[i]), r })));
    return found;
  };

  /* How uncertain the points are: a band about a curve, bars about points. */
  const intervals = (s, at) => {
    const up = (v) => Math.max(at.top, Math.min(at.bottom, at.Y(v))).toFixed(1), across = (v) => at.X(v).toFixed(1);
    if (s.low.length && s.style !== "points") {
      if (s.x.length < 2) return [];
      const there = s.x.map((x, i) => `${across(x)} ${up(s.high[i])}`), back = s.x.map((x, i) => `${across(x)} ${up(s.low[i])}`);
      return [svg("path", { class: `band c-${s.colour}`, d: `M${[...there, ...back.reverse()].join("L")}Z` })];
    }
    const whisker = (x1, x2, y1, y2) => svg("line", { class: `whisker c-${s.colour}`, x1, x2, y1, y2 });
    return [
      ...s.low.map((low, i) => whisker(across(s.x[i]), across(s.x[i]), up(low), up(s.high[i]))),
      ...s.left.map((left, i) => whisker(across(left), across(s.right[i]), up(s.y[i]), up(s.y[i]))),
    ];
  };

  /* The name of a series beside its last point; where two would meet, the lower one goes below its own point. */
  const names = (chart, at) => {
    const placed = [];
    return chart.series.filter((s) => s.style === "points").map((s) => [s, at.X(s.x[s.x.length - 1]), at.Y(s.y[s.y.length - 1])])
      .sort((a, b) => a[2] - b[2]).map(([s, x, y]) => {
        const wide = 7 * s.name.length, right = x + 8 + wide < at.right, left = right ? x + 8 : x - 8 - wide;
        let top = y - 6;
        while (placed.some(([l, w, t]) => l < left + wide && left < l + w && Math.abs(t - top) < 13)) top += 13;
        placed.push([left, wide, top]);
        return svg("text", { class: "name", x: right ? x + 8 : x - 8, y: top, "text-anchor": right ? "start" : "end" }, s.name);
      });
  };

  const bars = (chart, at) => {
    const floor = at.xs.map(() => 0), place = new Map(at.xs.map((x, i) => [x, i])), wide = (at.X(at.gap) - at.X(0)) * 0.9;
    return chart.series.flatMap((s) => s.x.map((x, i) => {
      const k = place.get(x), below = s.style === "stack" ? floor[k] : 0;
      floor[k] += s.y[i];
      const [a, b] = [at.Y(below), at.Y(below + s.y[i])];
      return svg("rect", { class: `bar-of ${s.style} c-${s.colour}`, x: at.X(x) - wide / 2, width: Math.max(0.5, wide), y: b, height: Math.max(0, a - b) });
    }));
  };

  const paint = (box, chart) => {
    const width = Math.max(200, box.clientWidth), height = box.clientHeight, at = scales(chart, width, height);
    const label = (cls, x, y, text) => svg("text", { class: cls, x, y }, text);
    const grid = at.marks.flatMap(([v, text]) => [
      svg("line", { class: "grid", x1: at.left, x2: at.right, y1: at.Y(v), y2: at.Y(v) }),
      label("y", at.left - 6, at.Y(v) + 4, text),
    ]);
    const { step, found } = ticks(at.x0, at.x1, Math.max(2, Math.min(7, width / 70)), true);
    const below = found.filter((v) => v >= at.x0 && v <= at.x1).map((v) => label("x", at.X(v), at.bottom + 16, tick(v, step, "")));
    const kind = chart.series[0].style;
    const drawn = kind === "stack" || kind === "overlay" ? bars(chart, at)
      : [...chart.series.flatMap((s) => intervals(s, at)), ...chart.series.flatMap((s) => curves(s, at)), ...(chart.named ? names(chart, at) : [])];
    const cursor = svg("line", { class: "cursor", y1: at.top, y2: at.bottom, visibility: "hidden" });
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
      ...grid, ...below, label("x unit", (at.left + at.right) / 2, height - 4, chart.x_title),
      label("unit", 2, 12, chart.unit), ...drawn, cursor);
    const tip = html("div", "value-tip");
    tip.hidden = true;
    box.replaceChildren(picture, tip);
    return { at, cursor, tip, width };
  };

  return (box, chart) => {
    let now = paint(box, chart), shown = -1;
    const show = (i) => {
      shown = i;
      now.tip.hidden = i < 0;
      now.cursor.setAttribute("visibility", i < 0 ? "hidden" : "visible");
      if (i < 0) return;
      const x = now.at.xs[i], place = now.at.X(x);
      now.cursor.setAttribute("x1", place);
      now.cursor.setAttribute("x2", place);
      const head = chart.x_title === "step" ? `step ${Math.round(x)}` : `${told(x, "number")} ${chart.x_title}`;
      const lines = chart.series.filter((s) => s.style !== "faint" && s.x.includes(x)).map((s) => {
        const line = html("div", "value");
        const i = s.x.indexOf(x), about = s.low.length ? ` (${bare(s.low[i], chart.format)} to ${bare(s.high[i], chart.format)})` : "";
        line.append(html("span", `swatch ${s.style} c-${s.colour}`), html("span", "", s.name), html("b", "", told(s.y[i], chart.format) + about));
        return line;
      });
      now.tip.replaceChildren(html("div", "value-head", head), ...lines);
      const room = box.clientWidth - now.tip.offsetWidth - 4, scale = box.clientWidth / now.width;
      const right = place * scale + 12;
      now.tip.style.left = `${Math.max(4, right > room ? place * scale - now.tip.offsetWidth - 12 : right)}px`;
    };
    const nearest = (event) => {
      const edge = box.getBoundingClientRect(), place = ((event.clientX - edge.left) * now.width) / edge.width;
      const away = now.at.xs.map((x) => Math.abs(now.at.X(x) - place));
      show(away.indexOf(Math.min(...away)));
    };
    box.tabIndex = 0;
    box.addEventListener("pointermove", nearest);
    box.addEventListener("pointerdown", nearest);
    box.addEventListener("pointerleave", () => show(-1));
    box.addEventListener("blur", () => show(-1));
    box.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") show(-1);
      if (!move) return;
      event.preventDefault();
      show(Math.max(0, Math.min(now.at.xs.length - 1, shown + move)));
    });
    let drawn = box.clientWidth;
    new ResizeObserver(() => {
      if (Math.abs(box.clientWidth - drawn) < 2 || !box.clientWidth) return;
      drawn = box.clientWidth;
      now = paint(box, chart);
    }).observe(box);
    return (next) => {
      chart = next;
      shown = -1;
      now = paint(box, chart);
    };
  };
})();
