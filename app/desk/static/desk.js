// Keys for those who work with the keyboard. All of it can be done without.
"use strict";

// Before times are made local: what the server gave of each part that is kept up to date.
const given = new Map();
for (const part of document.querySelectorAll("[data-live]")) given.set(part.id, part.innerHTML);

const search = document.querySelector("input[type=search]");
const listAddress = [...document.querySelectorAll("nav a")].find((a) => a.pathname.endsWith("/emails"));

function step(by) {
  const rows = [...document.querySelectorAll("#rows tbody a")];
  if (rows.length) {
    const at = rows.indexOf(document.activeElement);
    const next = at < 0 ? 0 : Math.min(Math.max(at + by, 0), rows.length - 1);
    rows[next].focus();
    return;
  }
  document.querySelector(by > 0 ? "a[rel=next]" : "a[rel=prev]")?.click();
}

// Checks the row that has the focus, or unchecks it.
function check() {
  document.activeElement.closest("tr")?.querySelector("input[type=checkbox]")?.click();
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");
  if (typing || document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = {
    "/": () => (search ? search.focus() : listAddress?.click()),
    j: () => step(1),
    k: () => step(-1),
    x: () => check(),
    a: () => document.querySelector("#bulk-form button[value=all]")?.click(),
    o: () => [...document.querySelectorAll("nav a")][0]?.click(),
    f: () => listAddress && location.assign(`${listAddress.href}?q=status%3Afailed`),
    "?": () => document.getElementById("keys").showModal(),
    r: () => document.querySelector("button[data-key=r]")?.click(),
  }[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});

// As the server writes a time in the language of the page.
const language = document.documentElement.lang;
function written(at, hasSeconds) {
  if (language !== "en") return at.toLocaleString(language, { dateStyle: "medium", timeStyle: hasSeconds ? "medium" : "short" });
  const two = (number) => String(number).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const clock = [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(":");
  return `${day} ${hasSeconds ? clock : clock.slice(0, 5)}`;
}

// Times in the reader's zone, as exactly as they are told in UTC; the exact one is shown on hover.
function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    const text = time.textContent.trim();
    const clock = /\d\d:\d\d(:\d\d)?$/.exec(text);
    if (isNaN(at) || time.dataset.utc || !clock) continue;
    time.dataset.utc = text;
    time.title = `${time.dateTime} (${text} UTC)`;
    time.textContent = written(at, clock[1] !== undefined);
  }
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  for (const name of root.querySelectorAll(".zone")) name.textContent = zone;
}
localTimes(document);

// All rows of a page at once.
function offerAll() {
  const boxes = [...document.querySelectorAll("#rows tbody input[type=checkbox]")];
  const head = document.querySelector("#rows th.check");
  if (!head || !boxes.length) return;
  const all = Object.assign(document.createElement("input"), { type: "checkbox" });
  all.setAttribute("aria-label", head.dataset.all);
  all.addEventListener("change", () => boxes.forEach((box) => (box.checked = all.checked)));
  head.replaceChildren(all);
}
offerAll();

// Parts of a page with `data-live` are kept up to date: the server says that something changed, and
// they are fetched anew, from where they say or with the page. Without such a stream they are
// fetched every few seconds.
const LIVE_SECONDS = 30, ALONE_SECONDS = 5;
const trouble = document.getElementById("trouble");
const stop = document.getElementById("stop");
let stream = null, isStopped = false, isFetching = false, isStale = false;

// A part in which somebody is about to do something is left alone.
function isInUse(part) {
  return part.querySelector("details[open] form, input:checked") || part.contains(document.activeElement?.closest("input, textarea, select"));
}

function renew(part, html) {
  if (html === undefined || html === given.get(part.id) || isInUse(part)) return;
  given.set(part.id, html);
  // Whoever walks through the links with the keyboard keeps their place.
  const place = [...part.querySelectorAll("a, button")].indexOf(document.activeElement);
  const open = [...part.querySelectorAll("details")].map((one) => one.open);
  part.innerHTML = html;
  part.querySelectorAll("details").forEach((one, index) => (one.open = open[index] ?? one.open));
  if (place >= 0) part.querySelectorAll("a, button")[place]?.focus({ preventScroll: true });
  localTimes(part);
  offerAll();
}

async function renewAll() {
  if (isStopped || document.hidden) return;
  isStale = isFetching;
  if (isFetching) return;
  isFetching = true;
  try {
    const parts = [...document.querySelectorAll("[data-live]")];
    const answer = await fetch(parts[0].dataset.live || location.href);
    if (answer.status === 401 || answer.redirected) return location.reload();
    if (!answer.ok) throw new Error(answer.status);
    const text = await answer.text();
    if (isStopped) return;
    if (parts[0].dataset.live) renew(parts[0], text);
    else {
      const page = new DOMParser().parseFromString(text, "text/html");
      for (const part of parts) renew(part, page.getElementById(part.id)?.innerHTML);
    }
    if (trouble) trouble.hidden = true;
  } catch {
    if (trouble) trouble.hidden = false;
  } finally {
    isFetching = false;
  }
  if (isStale) renewAll();
}

function listen() {
  stream = new EventSource(document.body.dataset.stream);
  stream.addEventListener("changed", renewAll);
  stream.addEventListener("signed-out", () => location.reload());
}

function keepRefreshing() {
  const isAlone = stream?.readyState !== EventSource.OPEN;
  setTimeout(() => { renewAll(); keepRefreshing(); }, (isAlone ? ALONE_SECONDS : LIVE_SECONDS) * 1000);
}

if (given.size) {
  listen();
  keepRefreshing();
  document.addEventListener("visibilitychange", renewAll);
  addEventListener("pagehide", () => stream.close());
  addEventListener("pageshow", (event) => event.persisted && (listen(), renewAll()));
}
stop?.addEventListener("click", () => {
  isStopped = !isStopped;
  stop.setAttribute("aria-pressed", isStopped);
  if (isStopped) stream.close();
  else listen(), renewAll();
});
