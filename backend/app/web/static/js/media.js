// Uploads of several pictures by choosing or dropping them, each with its progress.
import { announce, csrfToken, html, request, swap } from "./enhance.js";

const area = document.getElementById("upload-area");
const form = document.getElementById("upload");
const list = document.getElementById("uploads");
const input = form.querySelector("input[type=file]");
input.multiple = true;

function show(file) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  name.textContent = file.name;
  name.dir = "auto";
  const progress = document.createElement("progress");
  progress.max = 1;
  progress.value = 0;
  progress.setAttribute("aria-label", file.name);
  item.append(name, progress);
  list.hidden = false;
  list.append(item);
  return { item, progress };
}

function finish({ item, progress }, text, failed) {
  const result = document.createElement("span");
  result.textContent = text;
  if (failed) item.className = "failed";
  progress.replaceWith(result);
  announce(`${item.firstChild.textContent}: ${text}`);
}

// fetch does not tell the progress of uploads.
function send(file, alt, shown) {
  return new Promise((resolve) => {
    const upload = new XMLHttpRequest();
    upload.open("POST", form.action);
    upload.setRequestHeader("X-CSRF-Token", csrfToken());
    upload.setRequestHeader("Accept", "application/json");
    upload.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) shown.progress.value = event.loaded / event.total;
    });
    upload.addEventListener("loadend", () => {
      const stored = upload.status === 201;
      const reason = stored ? "" : html(upload.responseText).querySelector("#error-summary li");
      finish(shown, stored ? form.dataset.done : reason?.textContent.trim() || form.dataset.failed, !stored);
      resolve(stored);
    });
    const data = new FormData();
    data.append("file", file);
    data.append("alt", alt);
    upload.send(data);
  });
}

async function uploadAll(files, alt) {
  let stored = 0;
  for (const file of files) if (await send(file, alt, show(file))) stored += 1;
  if (!stored) return;
  form.reset();
  const response = await request(location.href);
  if (response.ok) swap("library", await response.text());
}

// One file with its text is a plain form, which leads to the page of the picture.
form.addEventListener("submit", (event) => {
  if (input.files.length < 2) return;
  event.preventDefault();
  uploadAll([...input.files], form.elements.alt.value);
});

for (const name of ["dragenter", "dragover"]) {
  area.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    area.classList.add("dropping");
  });
}
for (const name of ["dragleave", "drop"]) {
  area.addEventListener(name, () => area.classList.remove("dropping"));
}
area.addEventListener("drop", (event) => {
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  uploadAll([...event.dataTransfer.files], "");
});
