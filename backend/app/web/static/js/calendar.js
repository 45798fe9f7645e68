// Scheduled articles are dragged to another day. The link “Move” does the same with a form.

import { announce, csrfToken, request, swap } from "./enhance.js";

const TYPE = "application/x-pressroom-article";

document.addEventListener("dragstart", (event) => {
  const article = event.target.closest?.("[data-article]");
  if (!article) return;
  event.dataTransfer.setData(TYPE, article.dataset.article);
  event.dataTransfer.effectAllowed = "move";
  article.classList.add("dragged");
});

document.addEventListener("dragend", () => {
  for (const each of document.querySelectorAll(".dragged, .target")) each.classList.remove("dragged", "target");
});

document.addEventListener("dragover", (event) => {
  const day = event.target.closest?.("[data-day]");
  if (!day || !event.dataTransfer.types.includes(TYPE)) return;
  event.preventDefault();
  for (const each of document.querySelectorAll(".target")) each.classList.toggle("target", each === day);
  day.classList.add("target");
});

document.addEventListener("drop", async (event) => {
  const day = event.target.closest?.("[data-day]");
  const id = event.dataTransfer.getData(TYPE);
  if (!day || !id) return;
  event.preventDefault();
  const calendar = document.getElementById("calendar");
  const moved = calendar.dataset.textMoved;
  calendar.setAttribute("aria-busy", "true");
  try {
    const body = new URLSearchParams({ csrf_token: csrfToken(), day: day.dataset.day, zone: calendar.dataset.zone });
    const response = await request(`/studio/calendar/${id}`, { method: "POST", body });
    const text = await response.text();
    if (response.ok && swap("calendar", text)) announce(moved);
    else if (!swap("main", text)) location.assign(`/studio/calendar/${id}`);
  } catch (error) {
    announce(document.body.dataset.failed);
    if (!(error instanceof TypeError)) throw error;
  } finally {
    calendar.removeAttribute("aria-busy");
  }
});

// The first page after a sign-in is made before the browser has told its time zone.
const { zone } = document.getElementById("calendar").dataset;
if (zone !== Intl.DateTimeFormat().resolvedOptions().timeZone) {
  const response = await request(location.href);
  if (response.ok) swap("calendar", await response.text());
}
