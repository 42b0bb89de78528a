"use strict";
(() => {
  const tip = document.getElementById("tip");
  let current = [], shown = null, from = "";
  const place = (cell) => [scrollX, scrollY, cell.closest(".scroll")?.scrollLeft].join();

  /* A token under the pointer is marked in every picture: the rows are the same ones. */
  const show = (cell) => {
    current.forEach((other) => other.classList.remove("current"));
    current = [];
    shown = null;
    tip.hidden = !cell;
    if (!cell) return;
    current = cell.dataset.at ? [...document.querySelectorAll(`.w[data-at="${cell.dataset.at}"]`)] : [cell];
    current.forEach((other) => other.classList.add("current"));
    tip.textContent = cell.dataset.tip;
    shown = cell;
    const at = cell.getBoundingClientRect(), size = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left + at.width / 2 - size.width / 2), innerWidth - size.width - 8);
    const above = at.top - size.height - 8;
    from = place(cell);
    tip.style.left = `${left}px`;
    tip.style.top = `${above < 8 ? at.bottom + 8 : above}px`;
  };
  const cellOf = (event) => event.target.closest(".w, [data-tip]");
  document.addEventListener("pointerover", (e) => show(cellOf(e)));
  document.addEventListener("pointerdown", (e) => show(cellOf(e)));
  /* The event of a scroll comes late: it counts only where the token has moved since its numbers appeared. */
  const moved = () => shown && place(shown) !== from && show(null);
  document.addEventListener("scroll", moved, { passive: true, capture: true });

  /* The same with the keyboard. */
  for (const box of document.querySelectorAll(".panels .scroll")) {
    const rows = [...box.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("[data-tip]")]);
    let i = -1, t = -1;
    box.addEventListener("keydown", (e) => {
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[e.key];
      if (e.key === "Escape") show(null);
      if (!step) return;
      e.preventDefault();
      i = Math.max(0, Math.min(rows.length - 1, i + (i < 0 ? 1 : step[0])));
      t = Math.max(0, Math.min(rows[i].length - 1, t + (t < 0 ? 1 : step[1])));
      show(rows[i][t]);
    });
    box.addEventListener("blur", () => show(null));
  }
})();
