"use strict";

const EVERY_MILLISECONDS = 5000;
const figures = document.getElementById("figures");
const trouble = document.getElementById("trouble");
const pause = document.getElementById("pause");
let isPaused = false;

async function update() {
  try {
    const answer = await fetch(figures.dataset.address);
    if (answer.status === 401) return location.reload();
    if (!answer.ok) throw new Error(answer.status);
    const text = await answer.text();
    if (isPaused) return;
    // Whoever walks through the links with the keyboard keeps their place.
    const place = [...figures.querySelectorAll("a")].indexOf(document.activeElement);
    figures.innerHTML = text;
    if (place >= 0) figures.querySelectorAll("a")[place]?.focus({ preventScroll: true });
    trouble.textContent = "";
  } catch {
    trouble.textContent = "Mailroom does not answer. These are the last figures it gave.";
  }
}

async function keepUpdating() {
  if (!isPaused && !document.hidden) await update();
  setTimeout(keepUpdating, EVERY_MILLISECONDS);
}

pause.addEventListener("click", () => {
  isPaused = !isPaused;
  pause.setAttribute("aria-pressed", isPaused);
});
document.addEventListener("visibilitychange", () => document.hidden || isPaused || update());
setTimeout(keepUpdating, EVERY_MILLISECONDS);
