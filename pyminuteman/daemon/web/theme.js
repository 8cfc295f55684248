// Runs before the page is drawn: the theme that was chosen here last, or else the system's. A classic script, for modules come too late.
"use strict";
document.documentElement.classList.add("scripted");
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("minuteman-theme");
  } catch {
    // storage is not allowed: the system's theme it is
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
