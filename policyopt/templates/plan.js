"use strict";
(() => {
  for (const chart of JSON.parse(document.getElementById("data").textContent).charts) {
    drawChart(document.querySelector(`[data-chart="${chart.id}"]`), chart);
  }
})();
