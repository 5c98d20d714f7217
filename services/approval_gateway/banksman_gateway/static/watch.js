// Watching: while a page that changes is looked at, its changing part is read again every few seconds, from the address
// that it names. Without this script, reloading the page does the same.
"use strict";

const EVERY_MS = 3000;
const part = document.querySelector("[data-now]");
const note = document.querySelector("#watched");

async function look() {
  if (!document.hidden) {
    try {
      const answer = await fetch(part.dataset.now, { credentials: "same-origin", redirect: "manual" });
      if (!answer.ok) {
        note.textContent = "This page no longer follows what happens. Reload it.";
        return;
      }
      const read = new DOMParser().parseFromString(await answer.text(), "text/html");
      part.replaceChildren(...[...read.body.childNodes].map((node) => document.importNode(node, true)));
      note.textContent = "This page follows what happens by itself.";
      if (part.querySelector("[data-over]")) {
        note.textContent = "";
        return;
      }
    } catch {
      note.textContent = "The gateway does not answer. What you see may be out of date.";
    }
  }
  setTimeout(look, EVERY_MS);
}

if (part && !part.querySelector("[data-over]")) setTimeout(look, EVERY_MS);
