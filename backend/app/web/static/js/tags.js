// Tags as removable chips. The textarea with one tag on each line stays what is sent.

import { announce, html, request } from "./enhance.js";

const PAUSE = 200;

/** Replace the textarea by chips and a field with suggestions. */
export function prepare(area, suggestions, texts) {
  const box = document.createElement("div");
  const list = document.createElement("ul");
  const field = document.createElement("input");
  box.className = "tag-box";
  field.id = "tag-field";
  field.setAttribute("list", suggestions.id);
  field.autocomplete = "off";
  field.maxLength = 50;
  field.dir = "auto";
  for (const name of ["aria-describedby", "aria-invalid"]) {
    if (area.hasAttribute(name)) field.setAttribute(name, area.getAttribute(name));
  }
  document.querySelector(`label[for="${area.id}"]`).htmlFor = field.id;
  const hint = document.getElementById(`${area.id}-hint`);
  if (hint) hint.textContent = texts.tags;
  box.append(list, field);
  area.hidden = true;
  area.after(box);

  const names = () => area.value.split("\n").map((line) => line.trim()).filter(Boolean);

  function set(tags) {
    area.value = tags.join("\n");
    area.dispatchEvent(new Event("input", { bubbles: true }));
    draw();
  }

  function draw() {
    list.replaceChildren(...names().map((name) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      const text = document.createElement("span");
      text.textContent = name;
      text.dir = "auto";
      button.type = "button";
      button.textContent = "×";
      button.setAttribute("aria-label", `${texts.remove}: ${name}`);
      button.addEventListener("click", () => {
        set(names().filter((each) => each !== name));
        field.focus();
      });
      item.className = "badge";
      item.append(text, button);
      return item;
    }));
  }

  function add(text) {
    const known = new Set(names().map((name) => name.toLowerCase()));
    const fresh = text.split(/[,\n]/).map((each) => each.trim()).filter((each) => each && !known.has(each.toLowerCase()));
    if (fresh.length) {
      set([...names(), ...fresh]);
      announce(fresh.join(", "));
    }
    field.value = "";
  }

  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" || (event.key === "," && field.value.trim())) {
      event.preventDefault();
      add(field.value);
    } else if (event.key === "Backspace" && !field.value) {
      set(names().slice(0, -1));
    }
  });
  field.addEventListener("paste", (event) => {
    const text = event.clipboardData.getData("text");
    if (!/[,\n]/.test(text)) return;
    event.preventDefault();
    add(text);
  });
  field.addEventListener("blur", () => add(field.value));

  let timer;
  field.addEventListener("input", (event) => {
    event.stopPropagation();
    const isChosen = [...suggestions.options].some((option) => option.value === field.value);
    if (isChosen && event.inputType !== "insertText") return add(field.value);
    clearTimeout(timer);
    timer = setTimeout(async () => {
      if (!field.value.trim()) return;
      try {
        const response = await request(`/studio/articles/tags?${new URLSearchParams({ q: field.value })}`);
        const found = html(await response.text()).getElementById(suggestions.id);
        if (found) suggestions.replaceChildren(...[...found.children].map((option) => document.adoptNode(option)));
      } catch {
        // Suggestions are a convenience: the field works without them.
      }
    }, PAUSE);
  });
  draw();
  return draw;
}
