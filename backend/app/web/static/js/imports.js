// The page of a running import shows its progress until the import has ended.
import { request, swap } from "./enhance.js";

const INTERVAL = 2000;

async function update() {
  const state = document.getElementById("import-state");
  if (state?.dataset.running === undefined) return;
  try {
    const response = await request(location.href);
    if (response.ok && !response.redirected) swap("import-state", await response.text());
  } catch {
    // The server may restart: try again.
  }
  setTimeout(update, INTERVAL);
}

setTimeout(update, INTERVAL);
