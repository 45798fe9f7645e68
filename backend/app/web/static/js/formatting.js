// Markdown in a textarea: toolbar, shortcuts, and lists that go on at the next line.

const ITEM = /^(\s*)(?:([-*+])( \[[ xX]\])?|(\d{1,9})([.)])|(>)) (.*)$/;
const WRAPS = { bold: "**", italic: "_", code: "`" };
const PREFIXES = { heading: () => "## ", quote: () => "> ", list: () => "- ", task: () => "- [ ] ", numbers: (index) => `${index + 1}. ` };
const KEYS = { b: "bold", i: "italic", k: "link", e: "code" };

/** Replace the selection. The browser's undo keeps working. */
export function insert(area, text) {
  area.focus();
  if (text ? document.execCommand("insertText", false, text) : document.execCommand("delete")) return;
  area.setRangeText(text, area.selectionStart, area.selectionEnd, "end");
  area.dispatchEvent(new Event("input", { bubbles: true }));
}

function selectLines(area) {
  const { value, selectionStart: start, selectionEnd: end } = area;
  const first = value.lastIndexOf("\n", start - 1) + 1;
  const next = value.indexOf("\n", end);
  area.setSelectionRange(first, next < 0 ? value.length : next);
  return value.slice(first, next < 0 ? value.length : next);
}

function wrap(area, mark) {
  const { value, selectionStart: start, selectionEnd: end } = area;
  const chosen = value.slice(start, end);
  const isWrapped = value.slice(start - mark.length, start) === mark && value.slice(end, end + mark.length) === mark;
  if (isWrapped) {
    area.setSelectionRange(start - mark.length, end + mark.length);
    insert(area, chosen);
    area.setSelectionRange(start - mark.length, end - mark.length);
    return;
  }
  insert(area, mark + chosen + mark);
  area.setSelectionRange(start + mark.length, end + mark.length);
}

function prefix(area, make) {
  const lines = selectLines(area).split("\n");
  const isMarked = lines.every((line, index) => line.startsWith(make(index)));
  insert(area, lines.map((line, index) => (isMarked ? line.slice(make(index).length) : make(index) + line)).join("\n"));
}

function link(area) {
  const { value, selectionStart: start, selectionEnd: end } = area;
  const chosen = value.slice(start, end);
  const isAddress = /^https?:\/\/\S+$/.test(chosen);
  insert(area, isAddress ? `[](${chosen})` : `[${chosen}]()`);
  const caret = isAddress ? start + 1 : start + chosen.length + 3;
  area.setSelectionRange(caret, caret);
}

/** Apply a format of the toolbar to the selection. */
export function format(area, name) {
  if (name === "link") link(area);
  else if (WRAPS[name]) wrap(area, WRAPS[name]);
  else if (PREFIXES[name]) prefix(area, PREFIXES[name]);
}

function continueList(area) {
  const { value, selectionStart: start, selectionEnd: end } = area;
  const first = value.lastIndexOf("\n", start - 1) + 1;
  const found = ITEM.exec(value.slice(first, start));
  if (!found || start !== end) return false;
  const [, indent, bullet, task, number, delimiter, , text] = found;
  if (!text.trim()) {
    area.setSelectionRange(first, start);
    insert(area, "");
    return true;
  }
  const mark = number ? `${Number(number) + 1}${delimiter}` : bullet ? bullet + (task ? " [ ]" : "") : ">";
  insert(area, `\n${indent}${mark} `);
  return true;
}

/** Prepare the textarea and its toolbar. `onPicture` is called for the button of pictures. */
export function prepare(area, toolbar, { onPicture }) {
  area.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    const isCommand = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
    if (isCommand && KEYS[event.key.toLowerCase()]) {
      event.preventDefault();
      format(area, KEYS[event.key.toLowerCase()]);
    } else if (event.key === "Enter" && !event.ctrlKey && !event.metaKey && !event.shiftKey && continueList(area)) {
      event.preventDefault();
    }
  });
  const buttons = [...toolbar.querySelectorAll("button")];
  toolbar.addEventListener("click", (event) => {
    const name = event.target.closest("[data-format]")?.dataset.format;
    if (name === "picture") onPicture();
    else if (name) format(area, name);
  });
  // One tab stop; arrow keys lead through the buttons (ARIA: toolbar).
  toolbar.addEventListener("keydown", (event) => {
    const index = buttons.indexOf(document.activeElement);
    const forward = document.dir === "rtl" ? "ArrowLeft" : "ArrowRight";
    const back = document.dir === "rtl" ? "ArrowRight" : "ArrowLeft";
    const target = { [forward]: index + 1, [back]: index - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (target === undefined || index < 0) return;
    event.preventDefault();
    const next = buttons[(target + buttons.length) % buttons.length];
    for (const button of buttons) button.tabIndex = button === next ? 0 : -1;
    next.focus();
  });
}
