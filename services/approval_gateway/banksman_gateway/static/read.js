// Reading: what a vote needs that agrees. Without this script a box says that all of it was read; with it the button
// waits until every fold has been opened, and at tier high until every box was scrolled to its end and time has passed.
"use strict";

const keysOff = () => localStorage.getItem("keys") === "off";
const typedIn = (event) => event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");
const atEnd = (box) => box.scrollTop + box.clientHeight >= box.scrollHeight - 4;
const unopened = (root) => [...root.querySelectorAll("[data-whole] details.fold:not([open])")];

function openFolds(root) {
  for (const fold of root.querySelectorAll("details.fold")) fold.open = true;
}

function guard(root) {
  for (const button of root.querySelectorAll("button[data-guard]")) {
    const box = button.form.querySelector("input[name=read]");
    const byOpening = "byOpening" in box.dataset;
    const ready = Date.now() + Number(button.dataset.guard) * 1000;
    const folds = new Set(unopened(root));
    const unseen = new Set(byOpening ? [] : root.querySelectorAll(".lines"));
    const hint = document.createElement("p");
    hint.className = "small";
    if (byOpening) box.closest("label").hidden = true;
    button.form.insertBefore(hint, [...button.form.children].find((one) => one.contains(button)));
    const check = () => {
      for (const one of unseen) {
        if (atEnd(one) && !one.querySelector("details.fold:not([open])")) unseen.delete(one);
      }
      const late = Date.now() >= ready;
      if (byOpening) box.checked = !folds.size;
      hint.textContent = folds.size ? "First open what is folded above." : "";
      hint.hidden = !folds.size;
      button.disabled = !late || folds.size > 0 || unseen.size > 0 || !box.checked;
      if (!late) setTimeout(check, ready - Date.now() + 20);
    };
    for (const fold of folds) {
      fold.addEventListener("toggle", () => {
        folds.delete(fold);
        check();
      });
    }
    for (const one of unseen) one.addEventListener("scroll", check);
    box.addEventListener("change", check);
    check();
  }
}

// In the inbox the pane is guarded and the keys are read by the script of the inbox.
if (!document.querySelector("#pane")) {
  guard(document);
  document.addEventListener("keydown", (event) => {
    const off = typedIn(event) || keysOff() || event.ctrlKey || event.metaKey || event.altKey;
    if (event.key === "f" && !off) openFolds(document);
  });
}
