// Uploads of several pictures by choosing or dropping them, each with its progress.
import { announce, csrfToken, html, request, swap } from "./enhance.js";

const area = document.getElementById("upload-area");
const form = document.getElementById("upload");
const list = document.getElementById("uploads");
const input = form.querySelector("input[type=file]");
const common = form.elements.alt;
const chosen = document.getElementById("chosen");
input.multiple = true;

// Several pictures: one field for the alternative text of each, in place of the one of the form.
function describe() {
  for (const image of chosen.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  const files = input.files.length > 1 ? [...input.files] : [];
  chosen.replaceChildren(...files.map(row));
  chosen.hidden = !files.length;
  common.closest(".field").hidden = Boolean(files.length);
}

function row(file, number) {
  const item = document.createElement("li");
  const image = document.createElement("img");
  image.src = URL.createObjectURL(file);
  image.alt = "";
  const label = document.createElement("label");
  const name = document.createElement("bdi");
  name.textContent = file.name;
  label.append(`${form.dataset.textAlt}: `, name);
  const field = document.createElement("input");
  field.id = label.htmlFor = `alt-${number}`;
  field.maxLength = common.maxLength;
  field.dir = "auto";
  const group = document.createElement("div");
  group.className = "field";
  group.append(label, field);
  item.append(image, group);
  return item;
}

input.addEventListener("change", describe);
form.addEventListener("reset", () => setTimeout(describe)); // after the fields are empty

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

async function uploadAll(files, texts) {
  let stored = 0;
  for (const [number, file] of files.entries()) if (await send(file, texts[number], show(file))) stored += 1;
  if (!stored) return;
  form.reset();
  const response = await request(location.href);
  if (response.ok) swap("library", await response.text());
}

// One file with its text is a plain form, which leads to the page of the picture.
form.addEventListener("submit", (event) => {
  if (input.files.length < 2) return;
  event.preventDefault();
  uploadAll([...input.files], [...chosen.querySelectorAll("input")].map((field) => field.value));
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
  input.files = event.dataTransfer.files;
  describe();
  (chosen.querySelector("input") ?? common).focus();
});
