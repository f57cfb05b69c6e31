// Completes what is typed into the field of a search: a combobox with a list below it.
// https://www.w3.org/WAI/ARIA/apg/patterns/combobox/
"use strict";

{
  const field = document.getElementById("q");
  const list = Object.assign(document.createElement("ul"), { id: "completions", hidden: true });
  const values = JSON.parse(field.dataset.completions);
  const MOST = 8;
  let chosen = -1;
  let asked = false;

  for (const [name, value] of Object.entries({
    role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": list.id,
  })) field.setAttribute(name, value);
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", field.dataset.completionsName);
  field.after(list);

  // What there is lately; without an answer what is known is offered.
  async function ask() {
    if (asked) return;
    asked = true;
    try {
      const answer = await fetch(field.dataset.more);
      if (answer.ok) Object.assign(values, await answer.json());
    } catch {
      asked = false;
    }
    // What was typed meanwhile may fit now.
    if (chosen < 0 && document.activeElement === field) show();
  }

  // The part that the cursor is at the end of.
  function typed() {
    const before = field.value.slice(0, field.selectionStart);
    return before.slice(before.lastIndexOf(" ") + 1);
  }

  function fitting(part) {
    const colon = part.indexOf(":") + 1;
    const name = part.slice(0, colon).toLowerCase();
    const offered = colon ? (values[name] ?? []).map((value) => name + value) : Object.keys(values);
    const small = part.toLowerCase();
    return small ? offered.filter((text) => text.toLowerCase().startsWith(small) && text !== part) : [];
  }

  function close() {
    list.hidden = true;
    chosen = -1;
    field.setAttribute("aria-expanded", "false");
    field.removeAttribute("aria-activedescendant");
  }

  function show() {
    const texts = fitting(typed()).slice(0, MOST);
    close();
    list.replaceChildren(...texts.map((text, place) => {
      const item = Object.assign(document.createElement("li"), { id: `completion-${place}`, textContent: text });
      item.setAttribute("role", "option");
      item.setAttribute("aria-selected", "false");
      // Before the field loses the focus.
      item.addEventListener("mousedown", (event) => {
        event.preventDefault();
        take(text);
      });
      return item;
    }));
    if (!texts.length) return;
    list.hidden = false;
    field.setAttribute("aria-expanded", "true");
  }

  function choose(place) {
    const items = [...list.children];
    chosen = (place + items.length) % items.length;
    items.forEach((item, at) => item.setAttribute("aria-selected", String(at === chosen)));
    items[chosen].scrollIntoView({ block: "nearest" });
    field.setAttribute("aria-activedescendant", items[chosen].id);
  }

  function take(text) {
    const end = field.selectionStart;
    const start = end - typed().length;
    const whole = text.endsWith(":") ? text : `${text} `;
    field.setRangeText(whole, start, end, "end");
    show();
  }

  field.addEventListener("focus", ask);
  field.addEventListener("input", show);
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    if (list.hidden) {
      if (event.key === "ArrowDown") show();
      return;
    }
    const act = {
      ArrowDown: () => choose(chosen + 1),
      ArrowUp: () => choose(chosen < 0 ? -1 : chosen - 1),
      Escape: close,
      Tab: () => take(list.children[Math.max(chosen, 0)].textContent),
      Enter: chosen < 0 ? null : () => take(list.children[chosen].textContent),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
