"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  function setUpTheme() {
    const button = document.getElementById("theme");
    button.hidden = false;
    button.addEventListener("click", () => {
      const root = document.documentElement;
      const dark = root.dataset.theme ? root.dataset.theme === "dark"
        : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
    });
  }

  function setUpComparison(figure) {
    const panes = figure.querySelector(".panes");
    const divider = figure.querySelector(".divider");
    const choices = figure.querySelector(".choices");
    const move = () => {
      panes.style.setProperty("--split", `${divider.value}%`);
      divider.setAttribute("aria-valuetext", `${Math.round(divider.value)} % of the left picture`);
    };
    const choose = () => {
      const { left, right } = choices.querySelector(":checked").dataset;
      for (const pane of all(".pane", panes)) {
        pane.classList.toggle("left", pane.dataset.pane === left && left !== right);
        pane.classList.toggle("right", pane.dataset.pane === right);
      }
      divider.hidden = left === right;
    };
    figure.classList.add("live");
    choices.hidden = false;
    divider.addEventListener("input", move);
    choices.addEventListener("change", choose);
    choose();
    move();
  }

  function nearest(points, step) {
    return points.reduce((best, point) => Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best);
  }

  function setUpChart(figure) {
    const svg = figure.querySelector("svg[data-from]");
    const cross = svg.querySelector(".cross");
    const readout = figure.querySelector(".readout");
    const summary = readout.textContent;
    const { from, to, left, right } = Object.fromEntries(
      Object.entries(svg.dataset).map(([key, value]) => [key, Number(value)]));
    const curves = all("path[data-points]", svg).map((path) => ({
      name: path.dataset.name,
      points: path.dataset.points.split(" ").map((pair) => pair.split(",").map(Number)),
    }));
    const steps = [...new Set(curves.flatMap((curve) => curve.points.map((point) => point[0])))];
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const place = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
      const at = from + (place - left) / (right - left) * (to - from);
      const step = nearest(steps.map((one) => [one]), at)[0];
      const x = left + (step - from) / (to - from) * (right - left);
      cross.setAttribute("x1", x);
      cross.setAttribute("x2", x);
      cross.classList.add("shown");
      const here = curves.flatMap(({ name, points }) => {
        const point = points.find((one) => one[0] === step);
        return point ? [`${name} ${Number(point[1].toPrecision(4))}`] : [];
      });
      readout.textContent = `step ${step.toLocaleString("en")}: ${here.join("; ")}`;
    });
    svg.addEventListener("pointerleave", () => {
      cross.classList.remove("shown");
      readout.textContent = summary;
    });
  }

  setUpTheme();
  all(".comparison").forEach(setUpComparison);
  all(".chart").forEach(setUpChart);
})();
