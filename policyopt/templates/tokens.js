/* A response whose tokens are coloured by their weights; arrow keys move from token to token and say each weight in `readout`. */
const weighedTokens = (() => {
  /* The strongest colour is at the 98th percentile, so that one outlier does not bleach all others. */
  const strongest = (all) => {
    const sizes = all.filter((w) => w !== null).map(Math.abs).sort((a, b) => a - b);
    return sizes.length ? sizes[Math.floor(0.98 * (sizes.length - 1))] || sizes[sizes.length - 1] : 0;
  };

  const tint = (w, most) => {
    if (!w || !most) return "";
    const share = Math.round(6 + 44 * Math.min(1, Math.abs(w) / most));
    return `color-mix(in srgb, var(--${w > 0 ? "main" : "second"}) ${share}%, transparent)`;
  };

  const box = (sample, most, readout) => {
    const node = document.createElement("div");
    node.className = "text";
    node.tabIndex = 0;
    node.setAttribute("role", "group");
    node.setAttribute("aria-label", "Response, tokens coloured by weight. Arrow keys read the weights.");
    const spans = sample.pieces.map((piece, i) => {
      const w = sample.weights[i], span = document.createElement("span");
      span.textContent = piece;
      span.style.background = tint(w, most);
      span.title = `w = ${w === null ? "none" : w}`;
      return span;
    });
    node.append(...spans);
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
    node.addEventListener("keydown", (e) => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
      if (!move) return;
      e.preventDefault();
      select(Math.max(0, Math.min(spans.length - 1, at + move)));
    });
    node.addEventListener("click", (e) => select(spans.indexOf(e.target)));
    node.addEventListener("blur", () => select(-1));
    return node;
  };

  return { box, strongest };
})();
