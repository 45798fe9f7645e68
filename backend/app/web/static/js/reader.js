// Suggestions of titles below search fields, and the form of a comment inside the article's page.
import { html, request } from "./enhance.js";

const DELAY = 150;

for (const field of document.querySelectorAll("input[data-suggest]")) suggest(field);

function suggest(field) {
  const list = document.createElement("ul");
  let [timer, pending, active] = [0, null, -1];
  list.id = `${field.id}-suggestions`;
  list.className = "suggestions";
  list.hidden = true;
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", field.getAttribute("aria-label") ?? field.labels[0].textContent);
  field.after(list);
  field.setAttribute("role", "combobox");
  field.setAttribute("aria-autocomplete", "list");
  field.setAttribute("aria-controls", list.id);
  field.setAttribute("aria-expanded", "false");

  function close() {
    clearTimeout(timer);
    pending?.abort();
    list.hidden = true;
    field.setAttribute("aria-expanded", "false");
    choose(-1);
  }

  function choose(index) {
    active = index;
    for (const [number, option] of [...list.children].entries()) {
      option.setAttribute("aria-selected", String(number === index));
    }
    const option = list.children[index];
    option?.scrollIntoView({ block: "nearest" });
    if (option) field.setAttribute("aria-activedescendant", option.id);
    else field.removeAttribute("aria-activedescendant");
  }

  async function load() {
    const words = field.value.trim();
    if (!words) return close();
    pending?.abort();
    pending = new AbortController();
    try {
      const url = `${field.dataset.suggest}?${new URLSearchParams({ q: words })}`;
      const response = await request(url, { signal: pending.signal });
      if (!response.ok) return close();
      show(html(await response.text()).querySelectorAll("#suggestions a"));
    } catch (error) {
      // A newer request replaced this one, or the server did not answer: there are no suggestions.
      if (error.name !== "AbortError") close();
    }
  }

  function show(links) {
    list.replaceChildren();
    for (const [number, link] of [...links].entries()) {
      const option = document.createElement("li");
      option.id = `${list.id}-${number}`;
      option.dir = "auto";
      option.setAttribute("role", "option");
      option.textContent = link.textContent;
      option.dataset.url = link.getAttribute("href");
      list.append(option);
    }
    choose(-1);
    list.hidden = !links.length;
    field.setAttribute("aria-expanded", String(Boolean(links.length)));
  }

  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(load, DELAY);
  });
  field.addEventListener("keydown", (event) => {
    if (list.hidden || event.isComposing) return;
    const count = list.children.length;
    if (event.key === "ArrowDown") choose(active + 1 < count ? active + 1 : 0);
    else if (event.key === "ArrowUp") choose(active > 0 ? active - 1 : count - 1);
    else if (event.key === "Escape") close();
    else if (event.key === "Enter" && active >= 0) location.assign(list.children[active].dataset.url);
    else return;
    event.preventDefault();
  });
  // `mousedown` comes before the field loses the focus, which closes the list.
  list.addEventListener("mousedown", (event) => event.preventDefault());
  list.addEventListener("click", (event) => {
    const option = event.target.closest("[data-url]");
    if (option) location.assign(option.dataset.url);
  });
  field.addEventListener("blur", close);
}

document.addEventListener("pressroom:swapped", (event) => {
  if (event.target.id === "comment-form") event.target.querySelector("textarea")?.focus();
});
