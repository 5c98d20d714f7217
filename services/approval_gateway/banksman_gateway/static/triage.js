// Triage: the inbox by keyboard. Without this script every request has its page and every page its forms; with it the
// same pages are read into a pane beside the list, the next one before it is asked for, and a vote waits a few seconds
// in this tab, where it can be taken back, before it is sent. Nothing here decides what may be sent: the forms are the
// server's, with the digest of what was shown, and the server says of each vote what became of it.
"use strict";

const HOLD_MS = 5000;
// A browser goes on sending, after its page is left, no more than 64 KiB for all requests together.
const AFTER_LEAVING = 60_000;
const SUBMIT = "button:not([type=button])";
const OVER = ["approved", "denied", "answered", "expired", "cancelled", "superseded"].map((end) => `request.${end}`);
const NEWS = [
  ...OVER,
  "request.opened", "request.escalated", "request.revised", "request.extended",
  "vote.cast", "vote.withdrawn", "remark.added",
];
const SIGNED_OUT = "You are signed out. Sign in again, in another tab, then come back here.";
const AWAY = "The gateway does not answer. What you see in the list may be out of date.";
const WIDE = matchMedia("(min-width: 64rem)");

const list = document.querySelector("#waiting");
const pane = document.querySelector("#pane");
const bar = document.querySelector("#held");
const pill = document.querySelector("#news");
const help = document.querySelector("#keys");

const pages = new Map(); // address -> promise of the <main> of that page
const held = new Map(); // request -> a vote that is not sent yet
const sending = new Set(); // votes that are on their way
let current = null; // the row that is looked at
let shown = ""; // the request whose page is in the pane, whole

const rows = () => [...list.querySelectorAll("li[data-request]")];
const rowOf = (request) => list.querySelector(`li[data-request="${CSS.escape(request)}"]`);
const addressOf = (row) => row.querySelector("a.what").getAttribute("href");

// ---- reading pages into the pane

async function fetched(address, options) {
  const answer = await fetch(address, { credentials: "same-origin", ...options });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  return { ok: answer.ok, status: answer.status, url: new URL(answer.url).pathname, main: page.querySelector("main") };
}

function read(address) {
  if (!pages.has(address)) {
    const page = fetched(address).then((found) => {
      if (found.ok && found.url === address) return found;
      throw new Error(found.url.startsWith("/sign-in") ? SIGNED_OUT : `The gateway answered ${found.status}.`);
    });
    pages.set(address, page);
    page.catch(() => pages.delete(address));
  }
  return pages.get(address);
}

function put(page) {
  pane.replaceChildren(...[...page.main.childNodes].map((node) => document.importNode(node, true)));
  pane.scrollTop = 0;
  for (const presets of pane.querySelectorAll(".presets")) presets.hidden = false;
  guard(pane);
}

async function look(row, { quietly = false } = {}) {
  if (!row) return;
  current?.removeAttribute("aria-current");
  current = row;
  row.setAttribute("aria-current", "true");
  row.scrollIntoView({ block: "nearest" });
  if (!WIDE.matches) return;
  const request = row.dataset.request;
  if (request !== shown) stopLooking();
  // What was in the pane is gone before anything else is: no key and no click reaches another request's forms.
  shown = "";
  pane.replaceChildren();
  pane.setAttribute("aria-busy", "true");
  try {
    const page = await read(addressOf(row));
    if (current !== row) return;
    put(page);
    shown = request;
    if (looked?.request !== request) startLooking(request);
    if (!quietly) row.querySelector("a.what").focus({ preventScroll: true });
    const next = neighbour(row, 1);
    if (next && next.dataset.tier !== "high") read(addressOf(next)).catch(() => {});
  } catch (error) {
    if (current === row) pane.textContent = error.message === SIGNED_OUT ? SIGNED_OUT : AWAY;
  } finally {
    if (current === row) pane.removeAttribute("aria-busy");
  }
}

function neighbour(row, step) {
  const all = rows().filter((one) => !one.dataset.done || one === row);
  const at = all.indexOf(row);
  return all[at + step] ?? null;
}

function move(step) {
  const open = rows().filter((one) => !one.dataset.done);
  look(current ? neighbour(current, step) : open[0]);
}

// ---- votes are held, then sent

function verdictOf(form) {
  return new FormData(form).get("verdict");
}

function hold(form, submitter) {
  const request = form.getAttribute("action").split("/")[2];
  const row = rowOf(request);
  if (!row || request !== shown) return;
  const vote = {
    request,
    row,
    action: form.getAttribute("action"),
    body: new URLSearchParams(new FormData(form, submitter)),
    label: `${verdictOf(form)} ${row?.dataset.tool ?? ""}`,
  };
  vote.size = vote.body.toString().length;
  clearTimeout(held.get(request)?.timer);
  held.delete(request);
  // What could not be sent any more when the page is left is sent now: first this one alone, then the oldest.
  if (vote.size > AFTER_LEAVING) send(vote);
  else {
    for (const oldest of [...held.values()]) if (sizeOf(held.values()) + vote.size > AFTER_LEAVING) send(oldest);
    vote.timer = setTimeout(() => send(vote), HOLD_MS);
    held.set(request, vote);
    mark(row, "held", `${vote.label}: not sent yet`);
  }
  tellHeld();
  const next = neighbour(row, 1) ?? neighbour(row, -1);
  row.dataset.done = "held";
  look(next);
  if (!next) leave();
}

// The pane is emptied; the row keeps its place.
function leave() {
  stopLooking();
  shown = "";
  pane.replaceChildren();
}

function undo() {
  const vote = [...held.values()].at(-1);
  if (!vote) return;
  clearTimeout(vote.timer);
  held.delete(vote.request);
  delete vote.row.dataset.done;
  mark(vote.row, "", "");
  tellHeld();
  look(vote.row);
}

const sizeOf = (votes) => [...votes].reduce((sum, vote) => sum + vote.size, 0);

// Whether the server counted it.
function send(vote) {
  vote.sent = deliver(vote);
  return vote.sent;
}

async function deliver(vote) {
  clearTimeout(vote.timer);
  held.delete(vote.request);
  vote.keepalive = sizeOf(sending) + vote.size <= AFTER_LEAVING;
  sending.add(vote);
  tellHeld();
  mark(vote.row, "sent", `${vote.label}: sending`);
  pages.delete(vote.action.replace(/\/vote$/, ""));
  const refused = (words) => {
    mark(vote.row, "bad", words);
    delete vote.row.dataset.done;
    return false;
  };
  try {
    const answer = await fetched(vote.action, { method: "POST", body: vote.body, keepalive: vote.keepalive });
    if (answer.url.startsWith("/sign-in")) {
      pages.clear();
      return refused(`Not sent. ${SIGNED_OUT}`);
    }
    if (!answer.ok) {
      const note = answer.main.querySelector(".note.bad")?.textContent.trim() ?? `refused (${answer.status})`;
      return refused(`Not counted. ${note}`);
    }
    mark(vote.row, "good", `${vote.label}: ${answer.main.querySelector(".tag")?.textContent ?? "done"}`);
    return true;
  } catch {
    return refused("Not sent: the gateway does not answer. Vote again.");
  } finally {
    sending.delete(vote);
  }
}

function mark(row, kind, words) {
  if (!row) return;
  const said = row.querySelector(".became");
  said.className = `became small ${kind}`;
  said.textContent = words;
}

function tellHeld() {
  const last = [...held.values()].at(-1);
  bar.hidden = !last;
  if (last) {
    const more = held.size > 1 ? ` and ${held.size - 1} before it` : "";
    bar.querySelector("span").textContent = `${last.label}${more}: sent in a few seconds.`;
  }
}

// ---- keys

const formOf = (verdict) =>
  [...pane.querySelectorAll("form")].find((form) => form.querySelector(`input[name=verdict][value="${verdict}"]`));

function press(verdict) {
  if (!current || shown !== current.dataset.request || current.dataset.done) return;
  const form = formOf(verdict);
  if (!form) return;
  const reason = form.querySelector("textarea[required]");
  if (reason && !reason.value.trim()) return reason.focus();
  const button = form.querySelector(SUBMIT);
  if (button.disabled) {
    const fold = unopened(pane)[0];
    return fold ? fold.querySelector("summary").focus() : form.scrollIntoView({ block: "nearest" });
  }
  form.requestSubmit(button);
}

// The next part of what does not fit: a fold first, then of a box, then of the pane.
function readOn() {
  const fold = unopened(pane)[0];
  if (fold) {
    fold.open = true;
    return fold.scrollIntoView({ block: "nearest" });
  }
  const box = [...pane.querySelectorAll(".lines")].find((one) => !atEnd(one));
  box?.scrollIntoView({ block: "nearest" });
  (box ?? pane).scrollBy(0, (box ?? pane).clientHeight * 0.9);
}

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  a: () => press(formOf("approve") ? "approve" : "answer"),
  d: () => {
    const reason = formOf("deny")?.querySelector("textarea");
    if (shown && reason) reason.focus();
  },
  e: () => pane.querySelector('a[href$="/edit"]')?.click(),
  x: () => current?.querySelector("input[name=pick]")?.click(),
  X: () => chooseLike(),
  Escape: () => clearChosen() || leave(),
  r: readOn,
  f: () => openFolds(pane),
  u: undo,
  o: () => current && location.assign(addressOf(current)),
  g: () => location.assign("/groups"),
  "/": () => document.querySelector("#search")?.focus(),
  "?": () => (help.open ? help.close() : help.showModal()),
};

document.addEventListener("keydown", (event) => {
  const typing = typedIn(event);
  if (event.key === "Escape" && typing) return typing.blur();
  if (typing && event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    const button = typing.form?.querySelector(SUBMIT);
    return button && !button.disabled ? typing.form.requestSubmit(button) : undefined;
  }
  if (typing || keysOff() || event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const act = KEYS[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});

// ---- the page's own events

pane.addEventListener("submit", async (event) => {
  const form = event.target;
  event.preventDefault();
  if (form.getAttribute("action").endsWith("/vote")) return hold(form, event.submitter);
  const [row, before] = [current, shown];
  try {
    const page = await fetched(form.getAttribute("action"), {
      method: "POST",
      body: new URLSearchParams(new FormData(form, event.submitter)),
    });
    pages.delete(addressOf(row));
    if (before && shown === before) put(page);
  } catch {
    form.append("The gateway does not answer. Nothing was changed.");
  }
});

pane.addEventListener("click", async (event) => {
  const edit = event.target.closest('a[href*="/edit"]');
  const preset = event.target.closest("button[data-preset]");
  if (preset) {
    preset.form.querySelector("textarea").value = preset.dataset.preset;
    preset.form.querySelector("textarea").focus();
  }
  if (!edit || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const before = shown;
  const page = await fetched(edit.getAttribute("href"));
  if (before && shown === before && page.url === new URL(edit.href).pathname) {
    put(page);
    pane.querySelector("form :is(input:not([type=hidden]), textarea, select)")?.focus();
  }
});

list.addEventListener("click", (event) => {
  const link = event.target.closest("a.what");
  if (!link || !WIDE.matches || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  look(link.closest("li"));
});

bar.querySelector("button").addEventListener("click", undo);
help.querySelector("button").addEventListener("click", () => help.close());
addEventListener("pagehide", () => {
  for (const vote of [...held.values()]) send(vote);
});
addEventListener("beforeunload", (event) => {
  const open = [...held.values(), ...sending];
  if (sizeOf(open) > AFTER_LEAVING || open.some((vote) => vote.keepalive === false)) event.preventDefault();
});
// Signing out ends the session before the page is left: what is held goes first, and what was refused is seen.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.getAttribute("action") !== "/sign-out" || !(held.size || sending.size)) return;
  event.preventDefault();
  for (const vote of [...held.values()]) send(vote);
  const counted = await Promise.all([...sending].map((vote) => vote.sent));
  if (counted.every(Boolean)) form.submit();
});

for (const toggle of document.querySelectorAll("input[name=keys]")) {
  toggle.checked = !keysOff();
  toggle.addEventListener("change", () => localStorage.setItem("keys", toggle.checked ? "on" : "off"));
}

// ---- what happens meanwhile: rows stay where they are, and a pill counts what is new

const fresh = new Set();

function listen() {
  const stream = new EventSource("/inbox/events");
  const heard = (event) => {
    const said = JSON.parse(event.data);
    const row = said.request_id && rowOf(said.request_id);
    if (said.action === "request.opened" || said.action === "request.escalated") {
      if (!row) fresh.add(said.request_id);
    } else if (OVER.includes(said.action)) {
      fresh.delete(said.request_id);
      if (row && !row.dataset.done) {
        row.dataset.done = "over";
        mark(row, "soft", `${said.action.slice(8)} meanwhile`);
      }
      if (row) pages.delete(addressOf(row));
      if (row && row === current && !held.has(said.request_id)) look(row, { quietly: true });
    } else if (row) {
      pages.delete(addressOf(row));
      if (row === current && !pane.contains(document.activeElement)) look(row, { quietly: true });
    }
    pill.hidden = !fresh.size;
    pill.textContent = `${fresh.size} new: show`;
  };
  for (const name of NEWS) stream.addEventListener(name, heard);
  stream.addEventListener("looking", hearLooking);
}

pill.addEventListener("click", () => location.reload());
listen();
if (WIDE.matches) look(rows()[0], { quietly: true });
