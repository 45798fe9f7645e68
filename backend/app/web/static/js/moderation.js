// The moderation queue: choosing all, and keys that work while the focus is in the list.
import { announce } from "./enhance.js";

let position = 0;

function items() {
  return [...document.querySelectorAll("[data-queue] > li")];
}

function focusItem(index) {
  const all = items();
  if (!all.length) return;
  position = Math.min(Math.max(index, 0), all.length - 1);
  all[position].focus();
}

function count() {
  for (const shown of document.querySelectorAll("[data-count]")) {
    const chosen = document.querySelectorAll(`input[name="${shown.dataset.count}"]:checked`).length;
    shown.textContent = chosen ? `${shown.dataset.text} ${chosen}` : "";
  }
}

function act(item, key) {
  const box = item.querySelector(".choice input");
  if (key === "x") {
    box.checked = !box.checked;
    count();
  } else if (key === "o") {
    item.querySelector(".about a")?.click();
  } else {
    item.querySelector(`button[data-key="${key}"]`)?.click();
  }
}

document.addEventListener("keydown", (event) => {
  const item = event.target.closest?.("[data-queue] > li");
  const isTyping = event.target.matches?.("textarea, select, input:not([type=checkbox])");
  if (!item || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const index = items().indexOf(item);
  if (event.key === "j") focusItem(index + 1);
  else if (event.key === "k") focusItem(index - 1);
  else if ("xahdor".includes(event.key) && event.key.length === 1) act(item, event.key);
  else return;
  event.preventDefault();
});

document.addEventListener("focusin", (event) => {
  const item = event.target.closest("[data-queue] > li");
  if (item) position = items().indexOf(item);
});

document.addEventListener("change", (event) => {
  const { choose } = event.target.dataset;
  if (choose) {
    for (const box of document.querySelectorAll(`input[type=checkbox][name="${choose}"]`)) {
      box.checked = event.target.checked;
    }
  }
  count();
});

// After an action, the next item gets the focus.
document.addEventListener("pressroom:swapped", (event) => {
  if (event.target.id !== "queue") return;
  const message = document.getElementById("flash")?.textContent.trim();
  if (document.getElementById("error-summary")) return;
  if (items().length) focusItem(position);
  else document.getElementById("main")?.focus();
  if (message) announce(message);
  count();
});
