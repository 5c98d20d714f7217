// Choosing: rows that are ticked and not decided meanwhile, counted in a bar that leads to a look at all of them.
"use strict";

const choice = document.querySelector("#chosen");
const choiceBar = choice?.querySelector(".bar");
const boxes = () => rows().map((row) => row.querySelector("input[name=pick]")).filter(Boolean);

function chosen() {
  for (const box of boxes()) {
    box.disabled = Boolean(box.closest("li").dataset.done);
    if (box.disabled) box.checked = false;
  }
  return boxes().filter((box) => box.checked);
}

function tellChosen() {
  if (!choiceBar) return;
  const count = chosen().length;
  choiceBar.hidden = !count;
  choiceBar.querySelector("span").textContent = `${count} selected:`;
}

function chooseLike() {
  const own = current?.querySelector("input[name=pick]");
  if (!own || own.disabled) return;
  const wanted = !own.checked;
  for (const box of boxes()) {
    if (!box.disabled && box.closest("li").dataset.tool === current.dataset.tool) box.checked = wanted;
  }
  tellChosen();
}

// Whether there was something to clear.
function clearChosen() {
  const found = chosen();
  for (const box of found) box.checked = false;
  tellChosen();
  return found.length > 0;
}

if (choiceBar) {
  choice.addEventListener("change", tellChosen);
  choice.addEventListener("reset", () => setTimeout(tellChosen));
  addEventListener("pageshow", tellChosen);
  new MutationObserver(tellChosen).observe(list, { subtree: true, attributeFilter: ["data-done"] });
  tellChosen();
}
