// Dropped and pasted images are put into the file field, whose change event makes htmx send the form.
const field = document.getElementById("image");
const drop = document.getElementById("drop");
const preview = document.getElementById("preview");

function choose(files) {
  const image = [...files].find((file) => file.type.startsWith("image/"));
  if (!image) return;
  const chosen = new DataTransfer();
  chosen.items.add(image);
  field.files = chosen.files;
  field.dispatchEvent(new Event("change", { bubbles: true }));
}

document.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  choose(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => choose(event.clipboardData.files));
field.addEventListener("change", () => {
  URL.revokeObjectURL(preview.src);
  preview.hidden = !field.files.length;
  if (field.files.length) preview.src = URL.createObjectURL(field.files[0]);
});
// A filter that is changed before there is an image sends nothing.
document.getElementById("search").addEventListener("htmx:confirm", (event) => {
  if (!field.files.length && event.detail.triggeringEvent?.type === "change") event.preventDefault();
});
