// The pictures of the form: chosen, dropped or pasted, one or many; each can be taken away again.

import { size } from "./words.js";

let form;
let changed;
let shown = []; // addresses of the pictures in memory that are on the page

/** `onChange` is told whenever the pictures are others. */
export function takePictures(theForm, onChange) {
  form = theForm;
  changed = onChange;
  form.image.addEventListener("change", show);
  document.getElementById("picture-away").addEventListener("click", () => put([]));
  document.addEventListener("paste", (event) => {
    const files = picturesOf(event.clipboardData);
    if (!files.length) return;
    event.preventDefault();
    put([...pictures(), ...files]);
  });
  takeDrops();
  if (pictures().length) show(); // a browser may restore the form after a reload
}

/** The files as they stand. */
export function pictures() {
  return [...form.image.files];
}

/** Puts other files in their place. */
export function put(files) {
  const box = new DataTransfer();
  for (const file of files) box.items.add(file);
  form.image.files = box.files;
  show();
}

function picturesOf(data) {
  return [...(data?.files || [])].filter((one) => one.type.startsWith("image/"));
}

function takeDrops() {
  const zone = document.getElementById("drop");
  const holdsFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  // The whole page takes the drop: a miss would make the browser leave the page and open the picture.
  addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    zone.toggleAttribute("data-over", true);
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) zone.removeAttribute("data-over");
  });
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    zone.removeAttribute("data-over");
    if (event.dataTransfer.files.length) put([...pictures(), ...event.dataTransfer.files]);
  });
}

function show() {
  changed();
  delete form.dataset.input; // a job's own picture gives way to a new one
  for (const address of shown) URL.revokeObjectURL(address);
  shown = [];
  const files = pictures();
  const zone = document.getElementById("drop");
  const list = document.getElementById("pictures");
  const one = document.getElementById("picture");
  zone.toggleAttribute("data-full", files.length === 1);
  list.hidden = files.length < 2;
  one.hidden = files.length !== 1;
  const away = document.getElementById("picture-away");
  away.hidden = files.length === 0;
  away.textContent = files.length > 1 ? "Remove all" : "Remove";
  list.replaceChildren();
  if (files.length === 0) {
    one.removeAttribute("src");
    facts("");
  } else if (files.length === 1) showOne(one, zone, files[0]);
  else {
    facts(`${files.length} pictures, ${size(files.reduce((sum, file) => sum + file.size, 0))}: a clip of each`);
    list.append(...files.map(tile));
  }
}

function showOne(picture, zone, file) {
  picture.onload = () => facts(`${file.name}: ${picture.naturalWidth} × ${picture.naturalHeight} px, ${size(file.size)}`);
  picture.onerror = () => {
    picture.hidden = true;
    zone.removeAttribute("data-full");
    facts(`${file.name}, ${size(file.size)}: this browser cannot show it`);
  };
  picture.src = address(file);
  facts(`${file.name}, ${size(file.size)}`);
}

function tile(file, index) {
  const place = document.createElement("li");
  const picture = new Image();
  picture.alt = file.name;
  picture.src = address(file);
  const away = document.createElement("button");
  away.type = "button";
  away.className = "picture-off";
  away.textContent = "×";
  away.setAttribute("aria-label", `Remove ${file.name}`);
  away.addEventListener("click", () => {
    put(pictures().filter((_, other) => other !== index));
    (document.querySelector(".picture-off") || form.image).focus();
  });
  place.append(picture, away);
  return place;
}

function address(file) {
  const made = URL.createObjectURL(file);
  shown.push(made);
  return made;
}

function facts(text) {
  document.getElementById("picture-facts").textContent = text;
}
