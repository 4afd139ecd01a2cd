/** The page's script: zoom and pan. Without it the page shows the whole timeline. */
export const ganttScript: string = `
(() => {
  const gantt = document.getElementById("gantt");
  const plot = document.getElementById("plot");
  const axis = document.getElementById("axis");
  const labels = [...document.querySelectorAll("#labels text")].map((text) => ({
    text, center: Number(text.getAttribute("x")), width: Number(text.dataset.width), room: Number(text.dataset.room),
  }));
  const whole = Number(plot.getAttribute("width"));
  const height = Number(axis.dataset.height);
  const length = Number(gantt.dataset.seconds) * Number(gantt.dataset.perSecond);
  let from = 0;
  let shown = whole;

  function show(newFrom, newShown) {
    shown = Math.min(whole, Math.max(whole / 5000, newShown));
    from = Math.min(whole - shown, Math.max(0, newFrom));
    plot.setAttribute("viewBox", from + " 0 " + shown + " " + height);
    const zoom = whole / shown;
    for (const label of labels) {
      const { text, center, width, room } = label;
      const x = (center - from) * zoom;
      const isShown = width * zoom >= room && x >= room / 2 && x <= whole - room / 2;
      // There are thousands, and a changed attribute costs more than a comparison.
      if (isShown !== label.isShown) text.setAttribute("visibility", isShown ? "visible" : "hidden");
      if (isShown) text.setAttribute("x", x);
      label.isShown = isShown;
    }
    drawAxis();
  }

  function drawAxis() {
    const [low, high] = [from, from + shown].map((x) => (x / whole) * length);
    const atLeast = (high - low) / 10;
    const power = 10 ** Math.floor(Math.log10(atLeast));
    const step = [1, 2, 5, 10].find((factor) => factor * power >= atLeast * (1 - 1e-9)) * power;
    let drawing = "";
    for (let tick = Math.ceil(low / step - 1e-9); tick * step <= high * (1 + 1e-12); tick++) {
      const x = ((tick * step - low) / (high - low)) * whole;
      drawing += '<path class="grid" d="M' + x + " 0V" + height + '"/><text x="' + x + '" y="' + (height + 16) +
        '" text-anchor="middle">' + Number((tick * step).toPrecision(9)) + " " + gantt.dataset.unit + "</text>";
    }
    axis.innerHTML = drawing;
  }

  /** Where the pointer is, from 0 to 1 of what is shown. */
  function share(event) {
    const box = plot.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  }

  function zoomBy(factor, at) {
    const newShown = Math.min(whole, shown / factor);
    show(from + (shown - newShown) * at, newShown);
  }

  gantt.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.shiftKey) return;
    event.preventDefault();
    zoomBy(Math.exp(-(event.deltaY || event.deltaX) / 300), share(event));
  }, { passive: false });
  gantt.addEventListener("dblclick", (event) => zoomBy(2, share(event)));
  let held = null;
  gantt.addEventListener("pointerdown", (event) => {
    held = { at: share(event), from };
    gantt.setPointerCapture(event.pointerId);
  });
  gantt.addEventListener("pointermove", (event) => {
    if (held !== null) show(held.from + (held.at - share(event)) * shown, shown);
  });
  for (const end of ["pointerup", "pointercancel"]) gantt.addEventListener(end, () => { held = null; });
  document.getElementById("closer").addEventListener("click", () => zoomBy(2, 0.5));
  document.getElementById("wider").addEventListener("click", () => zoomBy(0.5, 0.5));
  document.getElementById("all").addEventListener("click", () => show(0, whole));
  document.getElementById("controls").hidden = false;
})();
`;
