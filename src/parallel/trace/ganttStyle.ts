/** What the Gantt page adds to the report's style: colours of passes, rows as wide as the window. */
export const ganttStyle: string = `
:root {
  --f0: #2f6fc4; --f1: #7aa9e3; --b0: #2c8a63; --b1: #76bf9f; --i0: #c98a1b; --i1: #e8bd68; --w0: #8a5fb8; --w1: #b999da;
  --other: #7c8796; --comm: #a8b4c4; --exposed: #d23f31; --on-dark: #ffffff; --on-light: #12202f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --f0: #3b7cd0; --f1: #83b1ea; --b0: #2f946b; --b1: #7fc9a8; --i0: #cc8f24; --i1: #ecc476; --w0: #946ac2; --w1: #c0a2e0;
    --other: #6d7887; --comm: #55637a; --exposed: #ff6b5c;
  }
}
main { max-width: 1440px; }
figure.gantt { overflow-x: auto; }
figure.gantt > svg { min-width: 900px; cursor: grab; touch-action: pan-y; user-select: none; }
figure.gantt > svg:active { cursor: grabbing; }
.gantt rect { stroke: var(--card); stroke-width: 0.7; vector-effect: non-scaling-stroke; }
.gantt rect.lane { fill: var(--page); stroke: none; }
.gantt text { pointer-events: none; }
.gantt .rank { font-weight: 600; }
#labels text { font-size: 10.5px; text-anchor: middle; }
${["f", "b", "i", "w"]
  .flatMap((pass) => [
    `.${pass}0 { fill: var(--${pass}0); background: var(--${pass}0); }`,
    `.${pass}1 { fill: var(--${pass}1); background: var(--${pass}1); }`,
    `#labels .on-${pass}0 { fill: var(--on-dark); } #labels .on-${pass}1 { fill: var(--on-light); }`,
  ])
  .join("\n")}
.other { fill: var(--other); background: var(--other); } #labels .on-other { fill: var(--on-dark); }
.comm { fill: var(--comm); background: var(--comm); } .exposed { fill: var(--exposed); background: var(--exposed); }
.gantt rect.comm, .gantt rect.exposed { stroke-width: 0.5; } .gantt rect.exposed { pointer-events: none; }
.wait { fill: var(--line); background: var(--line); }
#controls { margin-left: auto; } #controls[hidden] { display: none; }
button { font: inherit; font-size: 13px; padding: 1px 10px; color: var(--ink); background: var(--page); border: 1px solid var(--line); border-radius: 6px; cursor: pointer; }
button:hover { border-color: var(--axis); }
.numbers td:not(:first-child), .numbers th:not(:first-child) { text-align: right; }
.numbers tr:last-child td { font-weight: 600; }
.numbers + p { margin-top: 12px; max-width: 100ch; }
.share { color: var(--soft); }
`;
