// Pictures for an article: dropped, pasted or chosen, described, and uploaded with progress.

import { announce, csrfToken, html } from "./enhance.js";

const URL_OF_UPLOADS = "/studio/articles/pictures";
const dialog = document.getElementById("picture-dialog");
const chooser = document.getElementById("picture-file");

/** Ask for the alternative text. Return null if the writer cancels. */
function ask(file) {
  const field = document.getElementById("picture-alt");
  field.value = "";
  document.getElementById("picture-name").textContent = file.name;
  dialog.returnValue = "";
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "upload" ? field.value.trim() : null), { once: true });
  });
}

// fetch() tells nothing about the progress of an upload.
function send(file, alt, progress) {
  const data = new FormData();
  data.append("alt", alt);
  data.append("file", file);
  const transfer = new XMLHttpRequest();
  transfer.open("POST", URL_OF_UPLOADS);
  transfer.setRequestHeader("X-CSRF-Token", csrfToken());
  transfer.upload.addEventListener("progress", (event) => {
    progress.max = event.total;
    progress.value = event.loaded;
  });
  return new Promise((resolve, reject) => {
    transfer.addEventListener("load", () => resolve(transfer));
    transfer.addEventListener("error", () => reject(new Error("network")));
    transfer.send(data);
  });
}

function reason(page, status) {
  const found = page.querySelector("#error-summary li") ?? page.querySelector("main p:not(.error-status)");
  return found?.textContent.trim() || String(status);
}

/** Upload one picture; return its data, or null. Texts come from the form's data attributes. */
export async function upload(file, { form, list, alt }) {
  const row = document.createElement("div");
  const label = document.createElement("label");
  const progress = document.createElement("progress");
  progress.id = `upload-${crypto.randomUUID()}`;
  label.htmlFor = progress.id;
  label.textContent = `${form.dataset.textUpload}: ${file.name}`;
  row.className = "upload small";
  row.append(label, progress);
  list.append(row);
  try {
    const transfer = await send(file, alt, progress);
    const page = html(transfer.responseText);
    const picture = page.getElementById("picture");
    if (transfer.status === 200 && picture) {
      row.remove();
      return { url: picture.dataset.url, alt: picture.dataset.alt };
    }
    fail(row, `${form.dataset.textUploadFailed} ${reason(page, transfer.status)}`);
  } catch {
    fail(row, form.dataset.textOffline);
  }
  return null;
}

function fail(row, text) {
  const message = document.createElement("p");
  message.className = "notice danger";
  message.setAttribute("role", "alert");
  message.textContent = text;
  row.replaceChildren(message);
}

function escaped(alt) {
  return alt.replace(/[[\]\\]/g, "\\$&").replace(/\s+/g, " ");
}

/** Prepare uploads into the textarea. Return a function that opens the file chooser. */
export function prepare(form, area, list, insert) {
  let receive = null;

  async function add(files) {
    for (const file of files) {
      const alt = await ask(file);
      if (alt === null) continue;
      const picture = await upload(file, { form, list, alt });
      if (!picture) continue;
      const before = area.value.slice(0, area.selectionStart);
      const space = !before || before.endsWith("\n\n") ? "" : before.endsWith("\n") ? "\n" : "\n\n";
      insert(area, `${space}![${escaped(picture.alt)}](${picture.url})\n`);
      announce(form.dataset.textUploaded);
    }
  }

  area.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
    if (!files.length) return;
    event.preventDefault();
    add(files);
  });
  area.addEventListener("dragover", (event) => {
    if ([...event.dataTransfer.items].some((item) => item.kind === "file")) event.preventDefault();
  });
  // The browser would leave the page to open another kind of file. The server refuses it with a reason.
  area.addEventListener("drop", (event) => {
    const files = [...event.dataTransfer.files];
    if (!files.length) return;
    event.preventDefault();
    add(files);
  });
  chooser.addEventListener("change", () => {
    const files = [...chooser.files];
    chooser.value = "";
    receive(files);
  });

  return {
    choose() {
      receive = add;
      chooser.click();
    },
    chooseCover(use) {
      receive = async ([file]) => {
        const alt = file ? await ask(file) : null;
        const picture = alt !== null && (await upload(file, { form, list, alt }));
        if (picture) use(picture.url);
      };
      chooser.click();
    },
  };
}
