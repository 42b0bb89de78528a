"""How readable a page is: the contrast of every text with what lies behind it, as WCAG 2.1 defines it."""

from __future__ import annotations

from typing import Any

_FAINT = r"""
(least) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  canvas.canvas.width = canvas.canvas.height = 1;
  const known = new Map();
  const rgba = (text) => {
    if (!known.has(text)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = text;
      canvas.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
      known.set(text, [r, g, b, a / 255]);
    }
    return known.get(text);
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map((x) => x / 255).map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    const layers = [];
    for (let e = node; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const opacity = (node) => (node ? Number(getComputedStyle(node).opacity) * opacity(node.parentElement) : 1);
  const found = [];
  let seen = 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.textContent.trim(), node = walk.currentNode.parentElement;
    if (!text || ["SCRIPT", "STYLE", "NOSCRIPT", "OPTION"].includes(node.tagName) || !node.checkVisibility()) continue;
    const style = getComputedStyle(node), back = behind(node);
    const colour = rgba(node instanceof SVGElement ? style.fill : style.color);
    const front = over([...colour.slice(0, 3), colour[3] * opacity(node)], back);
    const [a, b] = [light(front), light(back)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    seen += 1;
    if (contrast < least) found.push(`${contrast.toFixed(2)} ${node.tagName}.${node.getAttribute("class")}: ${text.slice(0, 40)}`);
  }
  return [seen, found];
}
"""


def faint(page: Any, least: float = 4.5) -> list[str]:
    """The visible texts of a page that stand out too little, each with its contrast."""
    seen, found = page.evaluate(_FAINT, least)
    assert seen > 50, "the page has no text"
    return list(found)


def check_readable(page: Any) -> None:
    """Every text of a page, sections opened, stands out in light and in dark, and no phone scrolls sideways."""
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert faint(page) == [], scheme
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
