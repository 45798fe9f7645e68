// Enhancement of pages that work without scripts: fragments, dialogs, and forms that are sent once.

// Trusted Types: only responses of this origin become elements.
const policy = globalThis.trustedTypes?.createPolicy("pressroom", { createHTML: (text) => text });

/** Parse the HTML of a response of this origin. Its scripts do not run. */
export function html(text) {
  return new DOMParser().parseFromString(policy ? policy.createHTML(text) : text, "text/html");
}

export function csrfToken() {
  return document.querySelector('meta[name="csrf-token"]')?.content ?? "";
}

/** Fetch a page of this origin; the form token is sent with unsafe requests. */
export async function request(url, options = {}) {
  const target = new URL(url, location.href);
  if (target.origin !== location.origin) throw new Error(`not this origin: ${target.origin}`);
  const headers = new Headers(options.headers);
  const method = (options.method ?? "GET").toUpperCase();
  if (method !== "GET" && method !== "HEAD") headers.set("X-CSRF-Token", csrfToken());
  return fetch(target, { ...options, headers, credentials: "same-origin" });
}

/** Tell screen readers a message. */
export function announce(text) {
  const region = document.getElementById("announcements");
  if (region) region.textContent = text;
}

/** Replace the element `id` by that of the page in `text`. Return the new element, or null. */
export function swap(id, text) {
  const page = html(text);
  const [old, fresh] = [document.getElementById(id), page.getElementById(id)];
  if (!old || !fresh) return null;
  const active = document.activeElement;
  const focused = old.contains(active) ? active.id || active.name : "";
  const element = document.adoptNode(fresh);
  old.replaceWith(element);
  if (focused) {
    const name = CSS.escape(focused);
    const target = element.querySelector(`#${name}, [name="${name}"]`) ?? element;
    if (target === element) element.tabIndex = -1;
    target.focus({ preventScroll: true });
  }
  for (const part of ["flash"]) {
    const [shown, next] = [document.getElementById(part), page.getElementById(part)];
    if (shown && next && !element.contains(shown)) shown.replaceWith(document.adoptNode(next));
  }
  const token = page.querySelector('meta[name="csrf-token"]');
  const current = document.querySelector('meta[name="csrf-token"]');
  if (token && current) current.content = token.content;
  if (id === "main" && page.title) document.title = page.title;
  prepare(element);
  element.dispatchEvent(new CustomEvent("pressroom:swapped", { bubbles: true }));
  announce(document.getElementById("flash")?.textContent.trim() ?? "");
  return element;
}

async function load(source, url, options, submitter) {
  const id = source.dataset.enhance || "main";
  const region = document.getElementById(id);
  region?.setAttribute("aria-busy", "true");
  try {
    const response = await request(url, { ...options, headers: { "X-Fragment": id } });
    const type = response.headers.get("Content-Type") ?? "";
    const text = type.startsWith("text/html") ? await response.text() : "";
    // Sign-in and error pages replace the whole page.
    if (!text || !swap(id, text)) {
      if (options.method === "POST" && !response.redirected) return resubmit(source, submitter);
      location.assign(response.url);
      return;
    }
    const mode = source.dataset.history ?? (id === "main" ? "push" : "none");
    const isPage = response.redirected || !options.method;
    if (mode !== "none" && isPage && response.url !== location.href) {
      history[mode === "replace" ? "replaceState" : "pushState"]({ enhanced: id }, "", response.url);
      document.documentElement.dataset.enhanced = id;
    }
    document.getElementById("error-summary")?.focus();
  } catch (error) {
    announce(document.body.dataset.failed);
    throw error;
  } finally {
    region?.removeAttribute("aria-busy");
    release(source);
  }
}

function resubmit(form, submitter) {
  delete form.dataset.enhance;
  release(form);
  form.requestSubmit(submitter);
}

function release(form) {
  delete form.dataset.sending;
  form.removeAttribute("aria-busy");
}

function confirmed(form, submitter) {
  const { confirmLabel, cancelLabel } = document.body.dataset;
  const dialog = document.createElement("dialog");
  const text = document.createElement("p");
  text.textContent = submitter?.dataset.confirm ?? form.dataset.confirm;
  const row = document.createElement("form");
  row.method = "dialog";
  row.className = "cluster";
  for (const [value, label, kind] of [["yes", confirmLabel, "danger"], ["", cancelLabel, "secondary"]]) {
    const button = document.createElement("button");
    button.className = `button ${kind}`;
    button.value = value;
    button.textContent = label;
    row.append(button);
  }
  dialog.className = "stack";
  dialog.setAttribute("aria-label", text.textContent);
  dialog.append(text, row);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "yes");
      dialog.remove();
    });
  });
}

document.addEventListener("submit", async (event) => {
  const [form, submitter] = [event.target, event.submitter];
  if (form.method === "dialog" || event.defaultPrevented) return;
  const question = submitter?.dataset.confirm ?? form.dataset.confirm;
  if (question && !form.dataset.confirmed) {
    event.preventDefault();
    if (await confirmed(form, submitter)) {
      form.dataset.confirmed = "true";
      form.requestSubmit(submitter);
      delete form.dataset.confirmed;
    }
    return;
  }
  // The page stays open after a download, so its form can be sent again.
  if (form.method === "post" && form.dataset.download === undefined) {
    if (form.dataset.sending) {
      event.preventDefault();
      return;
    }
    form.dataset.sending = "true";
    form.setAttribute("aria-busy", "true");
  }
  delete form.dataset.changed;
  if (form.dataset.enhance === undefined) return;
  event.preventDefault();
  // Not the properties: a field named "action" hides form.action, and formAction is never empty.
  const action = submitter?.getAttribute("formaction") ?? form.getAttribute("action") ?? location.href;
  const data = new FormData(form, submitter);
  if (form.method === "post") {
    const isMultipart = form.enctype === "multipart/form-data";
    const body = isMultipart ? data : new URLSearchParams(data);
    await load(form, action, { method: "POST", body }, submitter);
  } else {
    const url = new URL(action, location.href);
    url.search = new URLSearchParams(data);
    await load(form, url, {});
  }
});

document.addEventListener("click", async (event) => {
  const opener = event.target.closest("[data-dialog]");
  if (opener) {
    document.getElementById(opener.dataset.dialog)?.showModal();
    return;
  }
  const copier = event.target.closest("[data-copy]");
  if (copier) {
    const source = document.querySelector(copier.dataset.copy);
    await navigator.clipboard.writeText(source.value ?? source.textContent.trim());
    announce(document.body.dataset.copied);
    return;
  }
  const link = event.target.closest("a[data-enhance]");
  const isPlain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!link || !isPlain || event.defaultPrevented) return;
  event.preventDefault();
  await load(link, link.href, {});
});

document.addEventListener("change", (event) => {
  const form = event.target.form;
  if (form && (form.dataset.autosubmit !== undefined || event.target.dataset.autosubmit !== undefined)) {
    form.requestSubmit();
  }
});

document.addEventListener("input", (event) => {
  const { target } = event;
  if (target.form?.dataset.warnUnsaved !== undefined) target.form.dataset.changed = "true";
  if (target.dataset.counter) count(target);
});

function count(field) {
  let shown = field.parentElement.querySelector(".counter");
  if (!shown) {
    shown = document.createElement("span");
    shown.className = "counter hint";
    field.after(shown);
  }
  shown.textContent = `${[...field.value].length} / ${field.dataset.counter}`;
}

addEventListener("beforeunload", (event) => {
  if (document.querySelector("form[data-changed]")) event.preventDefault();
});

addEventListener("popstate", (event) => {
  if (event.state?.enhanced || document.documentElement.dataset.enhanced) location.reload();
});

// A page from the back/forward cache may be that of a session that has ended.
addEventListener("pageshow", (event) => {
  if (event.persisted && csrfToken()) location.reload();
  for (const form of document.querySelectorAll("form[data-sending]")) release(form);
});

/** Prepare the elements of a new part of the page. */
function prepare(root) {
  for (const field of root.querySelectorAll("[data-counter]")) count(field);
  for (const time of root.querySelectorAll("time[data-local-time]")) {
    const options = { dateStyle: "medium", timeStyle: "short" };
    time.textContent = new Intl.DateTimeFormat(document.documentElement.lang, options).format(new Date(time.dateTime));
  }
}

// The studio shows days in the time zone of the browser (app/web/zones.py). With another path, the
// cookie would be sent for public pages as well, which nginx would then not answer itself.
if (csrfToken()) {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const secure = location.protocol === "https:" ? "; secure" : "";
  document.cookie = `pressroom-zone=${zone}; path=/studio; max-age=31536000; samesite=lax${secure}`;
}
document.documentElement.classList.add("scripted");
prepare(document);
document.querySelector("[data-focus]")?.focus();
