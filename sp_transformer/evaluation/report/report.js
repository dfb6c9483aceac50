"use strict";

// Sliders: how much of the width shows the chosen picture, the rest shows the truth.
for (const example of document.querySelectorAll(".example")) {
  const range = example.querySelector("input[type=range]");
  const tag = example.querySelector(".tag.l");
  const show = () => {
    example.style.setProperty("--at", range.value + "%");
    range.setAttribute("aria-valuetext", `${range.value} % ${tag.textContent}`);
  };
  range.addEventListener("input", show);
  for (const radio of example.querySelectorAll("input[type=radio]")) {
    radio.addEventListener("change", () => {
      for (const picture of example.querySelectorAll(".over")) {
        picture.classList.toggle("chosen", picture.dataset.view === radio.value);
      }
      tag.textContent = radio.value;
      show();
    });
  }
}

// Tables whose headings sort them; classes without a number stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  for (const button of table.querySelectorAll("th button")) {
    const heading = button.closest("th");
    button.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") !== "descending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const value = row => row.cells[headings.indexOf(heading)].dataset.value ?? "";
      const rows = [...body.rows].sort((a, b) => {
        if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === "");
        return (descending ? -1 : 1) * (value(a) - value(b));
      });
      body.append(...rows);
    });
  }
}

// The confusion matrix: drawn once, read by pointer or arrow keys.
const canvas = document.getElementById("matrix");
if (canvas) {
  const { names, counts, unclassified } = JSON.parse(document.getElementById("matrix-data").textContent);
  const readout = document.getElementById("matrix-readout");
  const size = names.length;
  const totals = counts.map((row, i) => row.reduce((a, b) => a + b, 0) + (unclassified[i] || 0));
  const context = canvas.getContext("2d");
  const labelled = size <= 40;
  let cell, left, top, at = null;

  function draw() {
    const style = getComputedStyle(document.documentElement);
    const color = name => style.getPropertyValue(name).trim();
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.parentElement.clientWidth;
    const font = Math.max(10, Math.min(13, width / size / 2.2));
    context.font = `${font}px system-ui, sans-serif`;
    const longest = labelled ? Math.max(...names.map(name => context.measureText(name).width)) : 0;
    left = labelled ? Math.min(longest, width * 0.3) + 10 : 0;
    top = labelled ? left : 0;
    cell = (width - left) / size;
    canvas.width = width * ratio;
    canvas.height = (top + cell * size) * ratio;
    canvas.style.height = `${top + cell * size}px`;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.font = `${font}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    context.fillStyle = color("--faint");
    context.fillRect(left, top, cell * size, cell * size);
    const gap = cell > 12 ? 1 : 0;
    for (let row = 0; row < size; row++) {
      for (let column = 0; column < size; column++) {
        const share = totals[row] ? counts[row][column] / totals[row] : 0;
        if (!share) continue;
        const x = left + column * cell, y = top + row * cell;
        context.globalAlpha = Math.sqrt(share);
        context.fillStyle = color(row === column ? "--accent" : "--warm");
        context.fillRect(x, y, cell - gap, cell - gap);
        context.globalAlpha = 1;
        if (cell > 24 && share >= 0.005) {
          context.fillStyle = share > 0.3 ? color("--page") : color("--ink");
          context.textAlign = "center";
          context.fillText(Math.round(100 * share), x + cell / 2, y + cell / 2);
        }
      }
    }
    if (labelled) {
      context.fillStyle = color("--soft");
      for (let index = 0; index < size; index++) {
        context.textAlign = "right";
        context.fillText(names[index], left - 8, top + (index + 0.5) * cell, left - 8);
        context.save();
        context.translate(left + (index + 0.5) * cell, top - 8);
        context.rotate(-Math.PI / 2);
        context.textAlign = "left";
        context.fillText(names[index], 0, 0, top - 8);
        context.restore();
      }
    }
    if (at) {
      context.strokeStyle = color("--ink");
      context.lineWidth = 2;
      context.strokeRect(left + at[1] * cell - 1, top + at[0] * cell - 1, cell + 1, cell + 1);
    }
  }

  function select(row, column) {
    at = [Math.max(0, Math.min(size - 1, row)), Math.max(0, Math.min(size - 1, column))];
    const [truth, predicted] = at;
    const count = counts[truth][predicted];
    const share = totals[truth] ? (100 * count / totals[truth]).toFixed(2) + " % of its pixels" : "no pixel";
    readout.textContent = truth === predicted
      ? `${names[truth]}, rightly found: ${share} (${count.toLocaleString("en")})`
      : `${names[truth]}, taken for ${names[predicted]}: ${share} (${count.toLocaleString("en")})`;
    draw();
  }

  canvas.addEventListener("pointermove", event => {
    const box = canvas.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top - top) / cell);
    const column = Math.floor((event.clientX - box.left - left) / cell);
    if (row >= 0 && column >= 0 && row < size && column < size) select(row, column);
  });
  canvas.addEventListener("keydown", event => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    select(...(at ? [at[0] + step[0], at[1] + step[1]] : [0, 0]));
  });
  canvas.addEventListener("focus", () => { if (!at) select(0, 0); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  // Drawing changes the height, which must not lead to drawing; and not before this frame is laid out, or Chromium
  // reports a loop.
  let width = 0;
  new ResizeObserver(entries => {
    const now = entries[0].contentRect.width;
    if (now !== width) { width = now; requestAnimationFrame(draw); }
  }).observe(canvas.parentElement);
}
