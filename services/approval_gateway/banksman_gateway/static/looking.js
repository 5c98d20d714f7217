// Looking: while a request is in the pane, the others are told so, for as long as somebody does something here. It is
// said no more once they leave it, decide, or press Escape, and by its lease when this browser is gone.
"use strict";

const CLAIM_MS = 60_000;
const SETTLE_MS = 800;

let looked = null; // what others are told: the request, the token of its form, and when they were told
let settling = 0;
let said = Promise.resolve();
let others = {}; // request -> names of those who look at it

function tellLooking(look, { request, token }, options) {
  const body = new URLSearchParams({ form: token, look });
  const call = () => fetch(`/requests/${request}/looking`, { method: "POST", body, redirect: "manual", ...options });
  if (options) call().catch(() => {});
  else said = said.then(call).catch(() => {});
}

// Once a request stays in the pane. Who may not vote has no form to say it with.
function startLooking(request) {
  stopLooking();
  const token = pane.querySelector('form[action$="/looking"] input[name=form]')?.value;
  if (!token) return;
  settling = setTimeout(() => {
    looked = { request, token, at: Date.now() };
    tellLooking("yes", looked);
  }, SETTLE_MS);
}

function stopLooking(options) {
  clearTimeout(settling);
  if (looked) tellLooking("no", looked, options);
  looked = null;
}

// Only what a person does prolongs the lease: a page that lies open claims nothing, and keeps no session alive.
function stillLooking() {
  if (!looked || Date.now() - looked.at < CLAIM_MS) return;
  looked.at = Date.now();
  tellLooking("yes", looked);
}

for (const name of ["keydown", "pointermove", "wheel"]) addEventListener(name, stillLooking, { passive: true });
addEventListener("pagehide", () => stopLooking({ keepalive: true }));

const wordsOf = (names) => (names?.length ? `${names.join(" and ")} ${names.length === 1 ? "is" : "are"} looking` : "");

function showLooking(tag, request) {
  tag.textContent = wordsOf(others[request]);
  tag.hidden = !tag.textContent;
}

function hearLooking(event) {
  others = JSON.parse(event.data);
  for (const row of rows()) {
    const tag = row.querySelector(".looking");
    if (tag) showLooking(tag, row.dataset.request);
  }
  refreshFoot();
}
