// What every page does: the theme, and what is said to screen readers.
const root = document.documentElement;
const button = document.getElementById("theme");

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function name() {
  button.textContent = isDark() ? "Light" : "Dark";
  button.setAttribute("aria-label", `Use ${isDark() ? "light" : "dark"} colors`);
}

if (button) {
  button.hidden = false;
  name();
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
    name();
    document.dispatchEvent(new CustomEvent("weber:theme"));
  });
}

// What a job says last is what matters.
function scroll() {
  for (const log of document.querySelectorAll("pre.log")) log.scrollTop = log.scrollHeight;
}
scroll();
document.body.addEventListener("htmx:afterSettle", scroll);
