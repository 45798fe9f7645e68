// Texts that this browser keeps until the server has stored them, or until their user signs out.
//
// Keys begin with the id of the user and a colon.

const PREFIX = "pressroom:text:";
const SETTLED = "pressroom:settled";
let isLeaving = false; // the user signs out: the editor of this page keeps nothing any more

const ownerOf = (key) => key.split(":")[0];

/** Return what its user has kept under a key, or null. */
export function find(key) {
  try {
    const kept = JSON.parse(localStorage.getItem(PREFIX + key));
    return kept?.user === ownerOf(key) ? kept : null;
  } catch {
    return null;
  }
}

/** Keep a text. Return false if the browser refuses, for example because its storage is full. */
export function keep(key, value) {
  if (isLeaving) return true;
  try {
    localStorage.setItem(PREFIX + key, JSON.stringify({ ...value, user: ownerOf(key) }));
    return true;
  } catch {
    return false;
  }
}

export function drop(key) {
  try {
    localStorage.removeItem(PREFIX + key);
  } catch {
    // Without storage, nothing was kept.
  }
}

/** Return the keys of a user's texts. */
function keysOf(user) {
  try {
    return Object.keys(localStorage).filter((name) => name.startsWith(`${PREFIX}${user}:`));
  } catch {
    return [];
  }
}

/** Note that a form with the text of `key` is sent. The next editor compares and drops it. */
export function settle(key) {
  try {
    sessionStorage.setItem(SETTLED, key);
  } catch {
    // The next editor then offers the kept text, although it was stored.
  }
}

/** Return the key of the form that was sent last, once. */
export function takeSettled() {
  try {
    const key = sessionStorage.getItem(SETTLED);
    sessionStorage.removeItem(SETTLED);
    return key;
  } catch {
    return null;
  }
}

// A form of the conflict was refused once more: nothing is settled.
if (document.getElementById("conflict")) takeSettled();

document.addEventListener("submit", (event) => {
  const key = event.target.dataset.settles;
  if (key) settle(key);
});

// Signing out removes the texts of the user, after a question if there are any. This listener comes
// before the one of enhance.js, which asks.
document.addEventListener("submit", (event) => {
  const form = event.target;
  const user = form.dataset.signsOut;
  if (!user) return;
  const keys = keysOf(user);
  if (keys.length && !form.dataset.confirmed) {
    form.dataset.confirm = form.dataset.textKept;
    return;
  }
  if (form.dataset.confirm === form.dataset.textKept) delete form.dataset.confirm;
  if (form.dataset.confirm && !form.dataset.confirmed) return;
  isLeaving = true;
  for (const name of keys) localStorage.removeItem(name);
}, { capture: true });
