// The search over all settings, while somebody types; without scripts the server does the same.
const field = document.getElementById("find");
const only = document.getElementById("only");
const box = only.querySelector("input");
const opened = new Map([...document.querySelectorAll("details.section")].map((one) => [one, one.open]));
only.hidden = false;
field.form.querySelector("button").hidden = true;
field.form.addEventListener("submit", (event) => event.preventDefault());

function show() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  const narrows = words.length > 0 || box.checked;
  for (const row of document.querySelectorAll(".setting")) {
    const isFound = words.every((word) => row.dataset.words.includes(word));
    const isChanged = row.querySelector(".mark").textContent.trim() !== "";
    row.classList.toggle("elsewhere", !isFound || (box.checked && !isChanged));
  }
  for (const [section, was] of opened) {
    const isEmpty = !section.querySelector(".setting:not(.elsewhere)");
    section.classList.toggle("empty", narrows && isEmpty);
    section.open = narrows ? !isEmpty : was;
  }
}

// What is to be mended is seen, in whatever section it is.
document.body.addEventListener("htmx:afterSettle", () => {
  for (const problem of document.querySelectorAll("#settings .said .problem")) {
    for (let one = problem.closest("details.section"); one; one = one.parentElement.closest("details.section")) one.open = true;
  }
});

field.addEventListener("input", show);
box.addEventListener("change", show);
if (field.value) show();

// Within the big form the key Enter saves nothing by itself: a change is written when the field is left.
document.getElementById("settings").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("input")) {
    event.preventDefault();
    event.target.dispatchEvent(new Event("change", { bubbles: true }));
  }
});
