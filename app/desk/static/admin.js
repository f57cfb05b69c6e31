// Piccolo Admin has no place of its own for this: rows lead to their pages at the desk, where a page
// shows what they are about, and tables whose rows change by their transitions alone offer nothing
// that would be refused.
"use strict";

const { rows, tables, readOnly, way: names } = document.currentScript.dataset;
const way = document.createElement("a");
way.id = "at-the-desk";
way.hidden = true;
// As Piccolo Admin does, in the browser's language.
const texts = JSON.parse(names);
way.textContent = texts[navigator.language.slice(0, 2)] ?? texts.en;
document.body.append(way);

function follow() {
  const [, table = "", key = "add"] = location.hash.match(/^#\/([a-z_]+)\/?([^/?]+)?/) ?? [];
  document.documentElement.classList.toggle("only-look", readOnly.split(" ").includes(table));
  way.hidden = key === "add" || !tables.split(" ").includes(table);
  // What a path leaves as it is has a meaning in a query.
  way.href = `${rows}/${table}?key=${key.replace(/[&+]/g, encodeURIComponent)}`;
}

// Its router tells nobody of its ways, and puts a page together bit by bit.
new MutationObserver(follow).observe(document.body, { childList: true, subtree: true });
addEventListener("hashchange", follow);
addEventListener("popstate", follow);
follow();
