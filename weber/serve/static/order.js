// The order of the queue, by dragging. Buttons do the same without a mouse.
let dragged = null;

function find(event) {
  return event.target instanceof Element ? event.target.closest("#waiting > li[data-id]") : null;
}

document.addEventListener("dragstart", (event) => {
  dragged = find(event);
  if (dragged) event.dataTransfer.setData("text/plain", dragged.dataset.id);
});
document.addEventListener("dragover", (event) => {
  if (dragged && event.target instanceof Element && event.target.closest("#waiting")) event.preventDefault();
});
document.addEventListener("drop", async (event) => {
  const over = find(event);
  if (!dragged) return;
  event.preventDefault();
  const id = dragged.dataset.id;
  dragged = null;
  if (over && over.dataset.id === id) return;
  const below = over && event.clientY > over.getBoundingClientRect().top + over.offsetHeight / 2;
  const before = over ? (below ? over.nextElementSibling?.dataset.id : over.dataset.id) : "";
  await fetch("/jobs/move", { method: "POST", body: new URLSearchParams({ id, before: before ?? "" }) });
  document.body.dispatchEvent(new Event("weber:look"));
});
