// The editor: the form works without scripts; these modules add what makes writing pleasant.

import { html, request } from "./enhance.js";
import * as formatting from "./formatting.js";
import * as pictures from "./pictures.js";
import * as saving from "./saving.js";
import * as tags from "./tags.js";

const PREVIEW_AFTER = 350;
const MIRROR_AFTER = 150;
const VIEW = "pressroom:view";

const form = document.getElementById("editor");
const area = document.getElementById("content");
const panes = document.getElementById("panes");
const pane = document.getElementById("preview-pane");
const field = (name) => form.elements.namedItem(name);

// The live preview, by the renderer of the server.
let previewTimer = 0;
let running = null;
let shown = null;

async function preview() {
  previewTimer = 0;
  if (pane.hidden || area.value === shown) return;
  running?.abort();
  running = new AbortController();
  const text = area.value;
  const body = new URLSearchParams({ csrf_token: field("csrf_token").value, content: text, title: field("title").value });
  try {
    const response = await request("/studio/articles/preview", { method: "POST", body, signal: running.signal });
    const fresh = html(await response.text());
    const target = document.getElementById("preview");
    const found = fresh.getElementById("preview");
    if (response.ok && found) {
      target.replaceWith(document.adoptNode(found));
      shown = text;
    } else {
      const reason = fresh.querySelector("#error-summary li") ?? fresh.querySelector("main p");
      target.replaceChildren(Object.assign(document.createElement("p"), { className: "notice danger", textContent: reason?.textContent.trim() ?? "" }));
    }
  } catch (error) {
    if (error.name !== "AbortError" && !(error instanceof TypeError)) throw error;
  }
}

function setView(view) {
  panes.dataset.view = form.dataset.view = view;
  area.hidden = view === "preview";
  pane.hidden = view === "write";
  for (const button of document.querySelectorAll("[data-view][aria-pressed]")) {
    button.setAttribute("aria-pressed", String(button.dataset.view === view));
  }
  try {
    localStorage.setItem(VIEW, view);
  } catch {
    // The choice is not remembered.
  }
  preview();
}

for (const button of document.querySelectorAll("[data-view][aria-pressed]")) {
  button.addEventListener("click", () => setView(button.dataset.view));
}
area.addEventListener("scroll", () => {
  const share = area.scrollTop / Math.max(1, area.scrollHeight - area.clientHeight);
  pane.scrollTop = share * (pane.scrollHeight - pane.clientHeight);
}, { passive: true });

// How the article appears elsewhere.
function beginning(text) {
  const plain = text.slice(0, 1000).replace(/!\[[^\]]*\]\([^)]*\)/g, "").replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").replace(/[#>*_`~|]/g, "");
  return plain.replace(/\s+/g, " ").trim().slice(0, 160);
}

function slugOf(title) {
  return title.normalize("NFKD").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 100);
}

let mirrorTimer = 0;

function mirror() {
  const values = {
    title: field("title").value || form.dataset.textTitle,
    slug: field("slug").value || slugOf(field("title").value),
    excerpt: field("excerpt").value || beginning(area.value),
  };
  for (const [name, value] of Object.entries(values)) {
    for (const element of document.querySelectorAll(`[data-mirror="${name}"]`)) element.textContent = value;
  }
  mirrorTimer = 0;
  const words = area.value.split(/\s+/).filter(Boolean).length;
  const number = new Intl.NumberFormat(document.documentElement.lang).format(words);
  document.getElementById("word-count").textContent = `${number} ${form.dataset.textWords}`;
}

function mirrorCover() {
  const image = document.querySelector('[data-mirror="cover_image_url"]');
  const value = field("cover_image_url").value.trim();
  image.hidden = !/^(https?:\/\/|\/)/.test(value);
  if (!image.hidden && image.getAttribute("src") !== value) image.src = value;
}

// The form sends the writer's local time, and its offset from UTC at that time.
function prepareSchedule() {
  const input = field("publish_on");
  if (!input) return;
  const pad = (number) => String(number).padStart(2, "0");
  if (input.dataset.moment && form.dataset.refused !== "true") {
    const at = new Date(input.dataset.moment);
    input.value = input.defaultValue = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}T${pad(at.getHours())}:${pad(at.getMinutes())}`;
  }
  const setOffset = () => {
    const at = input.value ? new Date(input.value) : new Date();
    const minutes = -at.getTimezoneOffset();
    const size = Math.abs(minutes);
    field("publish_offset").value = `${minutes < 0 ? "-" : "+"}${pad(Math.floor(size / 60))}:${pad(size % 60)}`;
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    document.getElementById("publish_on-hint").textContent = `${form.dataset.textZone} ${zone} (UTC${field("publish_offset").value})`;
  };
  input.addEventListener("input", setOffset);
  setOffset();
}

prepareSchedule();
const drawTags = tags.prepare(field("tags"), document.getElementById("tag-suggestions"), { remove: form.dataset.textRemove, tags: form.dataset.textTags });
const uploads = pictures.prepare(form, area, document.getElementById("uploads"), formatting.insert);
formatting.prepare(area, document.querySelector(".toolbar"), { onPicture: uploads.choose });
document.getElementById("cover-upload").addEventListener("click", () => uploads.chooseCover((url) => {
  field("cover_image_url").value = url;
  field("cover_image_url").dispatchEvent(new Event("input", { bubbles: true }));
}));
form.addEventListener("input", (event) => {
  if (!mirrorTimer) mirrorTimer = setTimeout(mirror, MIRROR_AFTER);
  if (event.target.name === "cover_image_url") mirrorCover();
  if (event.target === area && !previewTimer) previewTimer = setTimeout(preview, PREVIEW_AFTER);
});
saving.prepare(form, {
  redraw() {
    drawTags();
    mirror();
    preview();
  },
});
mirror();
let view = "write";
try {
  view = localStorage.getItem(VIEW) ?? view;
} catch {
  // The default is used.
}
if (view === "both" && matchMedia("(min-width: 60rem)").matches) setView("both");
