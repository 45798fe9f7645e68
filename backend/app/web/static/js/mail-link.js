// Links of mails: move the token from the fragment, which is not sent to servers, into the form.

function fill() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  const field = document.querySelector("input[data-link-token]");
  if (!field) return;
  if (token) {
    field.value = token;
    // The token is a secret: it stays neither in the address bar nor in the history.
    history.replaceState(history.state, "", location.pathname + location.search);
  }
  const invalid = field.getAttribute("aria-invalid") === "true";
  field.closest(".field").hidden = Boolean(field.value) && !invalid;
  if (token) document.querySelector("input[type=password]")?.focus();
}

addEventListener("hashchange", fill);
fill();
