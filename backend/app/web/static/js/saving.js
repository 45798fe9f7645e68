// Saving without leaving the page. What the server has not stored yet, this browser keeps.
//
// Drafts are saved a few seconds after a change. Texts that readers see are saved on request only.

import { html, request } from "./enhance.js";
import { drop, find, keep, settle, takeSettled } from "./kept.js";

const NAMES = ["title", "content", "tags", "excerpt", "slug", "cover_image_url", "language", "comment_policy", "publish_on"];
const STATE = ["etag", "digest", "version", "shown_slug", "shown_excerpt"];
const KEEP_AFTER = 300;
const SAVE_AFTER = 4000;
const BYTES_PER_SECOND = 8192; // longer texts are saved less often
const RETRY_AFTER = 10_000;
const MAX_BASE = 300_000; // two longer texts may exceed the limit of a request

/** Prepare saving. `redraw` is called after the fields were filled with a kept text. */
export function prepare(form, { redraw }) {
  const texts = form.dataset;
  const status = document.getElementById("save-status");
  const trouble = document.getElementById("trouble");
  const notice = document.getElementById("kept");
  const isAutomatic = texts.autosave === "true";
  const field = (name) => form.elements.namedItem(name);
  const read = (names) => Object.fromEntries(names.filter((name) => field(name)?.value !== undefined).map((name) => [name, field(name).value]));
  let stored = JSON.stringify(read(NAMES));
  let saving = false;
  let wanted = false; // a save was refused by the network or by the end of the session
  let conflict = false;
  let sessionHasEnded = false;
  let pressed = null; // a button that was pressed while the text was being saved
  let keepTimer = 0;
  let saveTimer = 0;
  let retryTimer = 0;

  const isChanged = () => JSON.stringify(read(NAMES)) !== stored;
  const isBlank = () => !field("title").value.trim() || !field("content").value.trim();

  function show(text) {
    status.textContent = text;
  }

  function complain(text, { session = false, retry = true } = {}) {
    document.getElementById("trouble-text").textContent = text;
    document.getElementById("trouble-sign-in").hidden = !session;
    document.getElementById("trouble-retry").hidden = !retry;
    trouble.hidden = false;
    trouble.dataset.session = session;
    show(texts.textKept);
  }

  function calm() {
    trouble.hidden = true;
    delete trouble.dataset.session;
  }

  function keepNow() {
    clearTimeout(keepTimer);
    keepTimer = 0;
    if (!isChanged()) {
      drop(texts.key);
      return true;
    }
    return keep(texts.key, { at: Date.now(), fields: read(NAMES), state: read(STATE) });
  }

  function changed() {
    if (!keepTimer) {
      keepTimer = setTimeout(() => {
        if (!keepNow()) complain(texts.textFull);
      }, KEEP_AFTER);
    }
    if (!isAutomatic || conflict) show(texts.textKept);
    else if (!saveTimer) saveTimer = setTimeout(save, SAVE_AFTER + (field("content").value.length / BYTES_PER_SECOND) * 1000);
  }

  async function send(base = "") {
    const body = new URLSearchParams(new FormData(form));
    body.set("intent", "autosave");
    if (base) body.set("base", base);
    const response = await request(form.action, { method: "POST", body });
    if (response.status !== 403 || !(await renewToken())) return response;
    body.set("csrf_token", field("csrf_token").value);
    return request(form.action, { method: "POST", body });
  }

  // After a new sign-in in another window, the token of this page belongs to the former session.
  async function renewToken() {
    const response = await request("/studio/articles/tags");
    const token = html(await response.text()).querySelector('meta[name="csrf-token"]');
    const current = document.querySelector('meta[name="csrf-token"]');
    sessionHasEnded = response.redirected;
    if (sessionHasEnded || !token || token.content === current.content) return false;
    current.content = field("csrf_token").value = token.content;
    return true;
  }

  async function save() {
    clearTimeout(saveTimer);
    clearTimeout(retryTimer);
    saveTimer = 0;
    if (saving) {
      wanted = true;
      return;
    }
    if (isBlank()) return show(texts.textKept);
    saving = true;
    wanted = false;
    show(texts.textSaving);
    const sent = JSON.stringify(read(NAMES));
    try {
      const answer = await ask(send);
      if (answer) await receive(answer, sent);
    } finally {
      saving = false;
    }
    const button = pressed;
    pressed = null;
    if (button && trouble.hidden) form.requestSubmit(button);
    else if (wanted && trouble.hidden) save();
  }

  /** Return the status and the page of a request; null without a network. */
  async function ask(start) {
    try {
      const response = await start();
      return { status: response.status, page: html(await response.text()) };
    } catch {
      wanted = true;
      pressed = null;
      complain(texts.textOffline);
      retryTimer = setTimeout(save, RETRY_AFTER);
      return null;
    }
  }

  async function receive({ status, page }, sent) {
    const saved = page.getElementById("saved");
    if (status === 200 && saved) return accept(saved.dataset, sent, page);
    if (status === 412) {
      // The server no longer has the text that this one was written from; this page does.
      const base = JSON.parse(stored || "{}").content ?? "";
      const isNeeded = page.getElementById("conflict")?.dataset.needsBase !== undefined;
      if (!isNeeded || !base || base.length > MAX_BASE) return showConflict(page);
      const again = await ask(() => send(base));
      if (!again) return;
      return again.status === 412 ? showConflict(again.page) : receive(again, sent);
    }
    if (status === 404) return complain(texts.textGone);
    if (status === 401 || (status === 403 && sessionHasEnded)) {
      wanted = true;
      return complain(texts.textSession, { session: true });
    }
    const once = page.querySelector('#editor input[name="once"]');
    if (once && field("once")) field("once").value = once.value;
    const reasons = [...page.querySelectorAll("#error-summary li")].map((item) => item.textContent.trim());
    const reason = reasons.join(" ") || page.querySelector("main p:not(.error-status)")?.textContent.trim() || status;
    complain(`${texts.textRefused} ${reason}`);
  }

  function accept(saved, sent, page) {
    calm();
    conflict = false;
    stored = sent;
    for (const name of ["slug", "excerpt"]) {
      const isShown = field(name).value === field(`shown_${name}`).value;
      field(`shown_${name}`).value = saved[name];
      if (isShown && document.activeElement !== field(name)) {
        field(name).value = saved[name];
        stored = JSON.stringify({ ...JSON.parse(stored), [name]: saved[name] });
      }
    }
    for (const name of ["etag", "digest", "version"]) field(name).value = saved[name];
    if (texts.key !== saved.key) {
      drop(texts.key);
      texts.key = saved.key;
      form.action = saved.action;
      history.replaceState(history.state, "", `${saved.action}/edit`);
      for (const id of ["editor-heading", "article-tabs"]) {
        document.getElementById(id).replaceChildren(...page.getElementById(id).childNodes);
      }
    }
    keepNow();
    const time = new Intl.DateTimeFormat(document.documentElement.lang, { timeStyle: "short" }).format(new Date());
    show(`${texts.textSaved} ${time}`);
    redraw();
    if (isChanged()) changed();
  }

  function showConflict(page) {
    const section = page.getElementById("conflict");
    const dialog = document.getElementById("conflict-dialog");
    conflict = true;
    complain(texts.textConflict);
    if (!section) return;
    keepNow();
    const close = document.createElement("button");
    close.type = "button";
    close.className = "button quiet small";
    close.textContent = document.body.dataset.cancelLabel;
    close.addEventListener("click", () => dialog.close());
    dialog.replaceChildren(document.adoptNode(section), close);
    if (!dialog.open) dialog.showModal();
  }

  function use(kept) {
    for (const [name, value] of Object.entries({ ...kept.fields, ...kept.state })) {
      if (field(name)) field(name).value = value;
    }
    redraw();
  }

  const hasText = (one, other) => one && one.title.trim() === other.title.trim() && one.content.trim() === other.content.trim();
  const tagsOf = (fields) => fields.tags.toLowerCase().split("\n").map((name) => name.trim()).filter(Boolean).sort().join("\n");
  const hasTags = (one, other) => tagsOf(one) === tagsOf(other);

  // A text that was kept before this page was opened.
  function offer() {
    const settled = takeSettled();
    const current = read(NAMES);
    const isStored = texts.refused !== "true";
    if (settled && settled !== texts.key && isStored && hasText(find(settled)?.fields, current)) drop(settled);
    const kept = find(texts.key);
    if (!kept || !isStored) return;
    if (settled === texts.key || (hasText(kept.fields, current) && hasTags(kept.fields, current))) return drop(texts.key);
    const time = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" }).format(new Date(kept.at));
    document.getElementById("kept-text").textContent = `${texts.textFound} ${time}`;
    // Typing must not replace it before the writer has decided.
    const found = `${texts.key}:found`;
    keep(found, kept);
    notice.hidden = false;
    document.getElementById("kept-use").addEventListener("click", () => {
      use(kept);
      drop(found);
      notice.hidden = true;
      keepNow();
      changed();
      field("content").focus();
    });
    document.getElementById("kept-discard").addEventListener("click", () => {
      drop(found);
      if (!isChanged()) drop(texts.key);
      notice.hidden = true;
      field("content").focus();
    });
  }

  offer();
  if (texts.refused === "true") {
    stored = "";
    keepNow();
    show(texts.textKept);
  }
  form.addEventListener("input", changed);
  form.addEventListener("change", changed);
  form.addEventListener("submit", (event) => {
    const submitter = event.submitter;
    if (submitter?.hasAttribute("formaction")) return;
    if (form.reportValidity && (submitter?.value ?? "save") === "save") {
      event.preventDefault();
      wanted = true;
      save();
      return;
    }
    keepNow();
    clearTimeout(saveTimer);
    clearTimeout(retryTimer);
    saveTimer = 0;
    if (saving) {
      // The answer has the entity tag that the next request needs.
      event.preventDefault();
      pressed = submitter;
      return;
    }
    if (!navigator.onLine) {
      event.preventDefault();
      complain(texts.textOffline);
      return;
    }
    // The next page has the key of the article that the server creates.
    if (form.action.endsWith("/studio/articles")) settle(texts.key);
  });
  document.getElementById("trouble-retry").addEventListener("click", () => {
    if (document.getElementById("trouble-text").textContent === texts.textGone) {
      // The page that follows has the text, and can save it as a new article.
      HTMLFormElement.prototype.submit.call(form);
    } else {
      save();
    }
  });
  addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "s") {
      event.preventDefault();
      save();
    }
  });
  addEventListener("online", () => wanted && save());
  addEventListener("focus", () => wanted && trouble.dataset.session === "true" && save());
  addEventListener("pagehide", keepNow);
  document.addEventListener("visibilitychange", () => document.hidden && keepNow());
  addEventListener("beforeunload", (event) => {
    if (isChanged() && !keepNow()) event.preventDefault();
  });
}
