"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const number = (x) => String(Number(x.toPrecision(3))).replace("-", "−");

  /* Curves: over what the switch says, of the contenders that are switched on. */
  const choices = [...document.querySelectorAll(".choice")], switches = [...document.querySelectorAll(".switch button")];
  const drawn = new Map();
  const pressed = (button) => button.getAttribute("aria-pressed") === "true";
  const press = (button, on) => button.setAttribute("aria-pressed", String(on));
  const draw = () => {
    const unit = switches.find(pressed)?.dataset.unit;
    const on = new Set(choices.filter(pressed).map((button) => button.dataset.contender));
    for (const chart of data.views[unit] || []) {
      const box = document.querySelector(`[data-chart="${chart.id}"]`), kept = chart.series.filter((s) => on.has(s.name));
      const shown = { ...chart, series: kept.length ? kept : chart.series };
      if (drawn.has(chart.id)) drawn.get(chart.id)(shown);
      else drawn.set(chart.id, drawChart(box, shown));
    }
  };
  for (const button of switches) button.addEventListener("click", () => {
    switches.forEach((other) => press(other, other === button));
    draw();
  });
  for (const button of choices) button.addEventListener("click", () => {
    press(button, !pressed(button));
    /* The last one to go brings all back. */
    if (!choices.some(pressed)) choices.forEach((other) => press(other, true));
    draw();
  });
  draw();
  if (data.front) drawChart(document.querySelector(`[data-chart="${data.front.id}"]`), data.front);

  /* Token weights, each picture on a scale of its own. */
  for (const figure of document.querySelectorAll("[data-picture]")) {
    const samples = data.pictures[Number(figure.dataset.picture)], readout = figure.querySelector(".readout");
    const most = weighedTokens.strongest(samples.flatMap((sample) => sample.weights));
    for (const sample of samples) readout.before(weighedTokens.box(sample, most, readout));
    figure.querySelector(".least").textContent = `w = ${number(-most)}`;
    figure.querySelector(".most").textContent = number(most);
  }
})();
