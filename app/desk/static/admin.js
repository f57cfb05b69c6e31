// Piccolo Admin has no place of its own for this: rows of emails lead to their pages at the desk, and
// tables whose rows change by their transitions alone offer nothing that would be refused.
"use strict";

const { emails, readOnly, way: names } = document.currentScript.dataset;
const way = document.createElement("a");
way.id = "at-the-desk";
way.hidden = true;
// As Piccolo Admin does, in the browser's language.
const texts = JSON.parse(names);
way.textContent = texts[navigator.language.slice(0, 2)] ?? texts.en;
document.body.append(way);

function follow() {
  const [, table = "", id = ""] = location.hash.match(/^#\/([a-z_]+)\/?([0-9a-f-]{36})?/) ?? [];
  document.documentElement.classList.toggle("only-look", readOnly.split(" ").includes(table));
  way.hidden = !(table === "incoming_emails" && id);
  way.href = `${emails}/${id}`;
}

// Its router tells nobody of its ways, and puts a page together bit by bit.
new MutationObserver(follow).observe(document.body, { childList: true, subtree: true });
addEventListener("hashchange", follow);
addEventListener("popstate", follow);
follow();
