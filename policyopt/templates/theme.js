"use strict";
(() => {
  /* Theme: the system's, until the button says otherwise. */
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("policyopt-theme"); } catch { return null; } };
  const theme = () => stored() || (dark.matches ? "dark" : "light");
  const button = document.getElementById("theme");
  const applyTheme = (name) => {
    document.documentElement.style.colorScheme = name;
    button.setAttribute("aria-pressed", String(name === "dark"));
    button.textContent = name === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to the ${name === "dark" ? "light" : "dark"} theme`);
  };
  let current;
  const changeTheme = (name) => {
    current = name;
    applyTheme(name);
  };
  changeTheme(theme());
  button.addEventListener("click", () => {
    const name = current === "dark" ? "light" : "dark";
    try { localStorage.setItem("policyopt-theme", name); } catch { /* a page from a file may have no storage */ }
    changeTheme(name);
  });
  dark.addEventListener("change", () => { if (!stored()) changeTheme(theme()); });
})();
