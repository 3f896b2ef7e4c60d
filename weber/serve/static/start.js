// Pictures that are dropped are sent like chosen ones, and how much of them is sent is shown.
const form = document.getElementById("upload");
const files = document.getElementById("files");
const drop = document.getElementById("drop");
const bar = document.getElementById("sent");

for (const kind of ["dragover", "dragenter"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (!event.dataTransfer.files.length) return;
  files.files = event.dataTransfer.files;
  form.requestSubmit();
});

form.addEventListener("submit", (event) => {
  if (!files.files.length) return;
  event.preventDefault();
  const request = new XMLHttpRequest();
  request.open("POST", form.action);
  bar.hidden = false;
  request.upload.addEventListener("progress", (sent) => {
    if (sent.lengthComputable) bar.value = (100 * sent.loaded) / sent.total;
  });
  request.addEventListener("load", () => {
    if (request.status < 400) location.href = request.responseURL;
    else {
      const said = new DOMParser().parseFromString(request.responseText, "text/html");
      document.getElementById("main").replaceChildren(...said.getElementById("main").childNodes);
    }
  });
  request.addEventListener("error", () => {
    bar.hidden = true;
    document.getElementById("said").textContent = "The server cannot be reached; nothing was sent.";
  });
  request.send(new FormData(form));
});
