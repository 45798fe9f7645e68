// Texts that this browser keeps until the server has stored them.

const PREFIX = "pressroom:text:";
const SETTLED = "pressroom:settled";

/** Return what was kept under a key, or null. */
export function find(key) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + key));
  } catch {
    return null;
  }
}

/** Keep a text. Return false if the browser refuses, for example because its storage is full. */
export function keep(key, value) {
  try {
    localStorage.setItem(PREFIX + key, JSON.stringify(value));
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
