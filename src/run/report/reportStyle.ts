/** The report page's style: system fonts, one column, colours as variables for light and dark. */
export const reportStyle: string = `
:root {
  color-scheme: light dark;
  --page: #f7f7f4; --card: #ffffff; --ink: #1b2330; --soft: #5d6878; --line: #e3e5ea; --axis: #9aa3b0;
  --c1: #1f5fbf; --c2: #b4570a; --c3: #0b7f6d; --c4: #7a4fb5;
  --h0: #14508f; --h1: #3f7fc1; --h2: #86b2dd; --h3: #c9dff1; --h4: #eef0f2;
  --h5: #fbdfc0; --h6: #f5b678; --h7: #dd7a2d; --h8: #a34709;
  --good: #0b7f6d; --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12151a; --card: #1a1f26; --ink: #e4e8ee; --soft: #98a3b3; --line: #2b323c; --axis: #5b6675;
    --c1: #7db0ff; --c2: #f2a65a; --c3: #4fd0b6; --c4: #c3a1f2;
    --h0: #8fc4ff; --h1: #5b9be6; --h2: #3a6ca8; --h3: #2b4767; --h4: #262d36;
    --h5: #5a4028; --h6: #94602a; --h7: #d1862f; --h8: #ffc27a;
    --good: #4fd0b6; --bad: #ff8a80;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 48px 0 12px; }
p { margin: 0 0 12px; max-width: 70ch; }
.soft { color: var(--soft); }
.status { display: inline-block; padding: 1px 9px; border: 1px solid currentColor; border-radius: 99px; font-size: 13px; }
.status.completed { color: var(--good); }
.status.failed { color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px; margin: 24px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
.tile b { display: block; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.charts { display: grid; grid-template-columns: 1fr 1fr; gap: 12px; }
figure { margin: 0 0 12px; padding: 14px 16px 10px; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.charts + figure { margin-top: 12px; }
.charts figure { margin: 0; min-width: 0; }
figcaption { display: flex; flex-wrap: wrap; gap: 2px 16px; align-items: baseline; margin-bottom: 6px; }
figcaption b { font-weight: 600; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg svg { overflow: hidden; }
text { font: 11px system-ui, sans-serif; fill: var(--soft); font-variant-numeric: tabular-nums; }
.wide text { font-size: 12px; }
.label { font-weight: 600; }
.grid { stroke: var(--line); fill: none; }
.axis { stroke: var(--axis); fill: none; }
.level { stroke: var(--soft); stroke-dasharray: 5 4; fill: none; }
.level-label { font-weight: 400; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.raw { fill: none; stroke-width: 1; opacity: 0.38; }
.faint { fill: none; stroke: var(--axis); stroke-width: 1; opacity: 0.6; }
${["c1", "c2", "c3", "c4"]
  .map(
    (tone) =>
      `path.${tone} { stroke: var(--${tone}); } circle.${tone}, text.${tone} { fill: var(--${tone}); } .swatch.${tone} { background: var(--${tone}); }`,
  )
  .join("\n")}
${Array.from({ length: 9 }, (_, level) => `.h${level} { fill: var(--h${level}); }`).join(" ")}
.key { display: inline-flex; align-items: center; gap: 6px; color: var(--soft); font-size: 13px; white-space: nowrap; }
.swatch { width: 16px; height: 3px; border-radius: 2px; }
.swatch.dashed { height: 0; border-top: 2px dashed var(--soft); border-radius: 0; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 14px; color: var(--soft); font-size: 13px; max-width: none; }
.cell { width: 13px; height: 13px; border-radius: 3px; }
.table { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 16px; border-top: 1px solid var(--line); vertical-align: top; }
thead th { border-top: 0; color: var(--soft); font-weight: 500; font-size: 13px; }
td:first-child { white-space: nowrap; }
.facts td:first-child { width: 240px; color: var(--soft); }
.facts tr:first-child td { border-top: 0; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
.good { color: var(--good); } .bad { color: var(--bad); }
.sample { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; margin-bottom: 10px; }
.sample h3 { margin: 0 0 4px; font-size: 13px; font-weight: 500; color: var(--soft); }
.sample p { margin: 0; max-width: none; white-space: pre-wrap; overflow-wrap: anywhere; font: 16px/1.6 Georgia, "Times New Roman", serif; }
.sample .prompt { color: var(--soft); }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: 6px 14px; align-items: center; }
.bars i { height: 12px; border-radius: 3px; background: var(--c1); min-width: 2px; }
.bars span:nth-child(3n) { font-variant-numeric: tabular-nums; text-align: right; }
.panel { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
details summary { cursor: pointer; color: var(--soft); margin-bottom: 8px; }
ul { margin: 0; padding-left: 20px; }
footer { margin-top: 56px; color: var(--soft); font-size: 13px; }
@media (max-width: 760px) {
  .tiles { grid-template-columns: 1fr 1fr; }
  .charts { grid-template-columns: 1fr; }
  .bars { grid-template-columns: minmax(0, 45%) 1fr max-content; }
  figure.wide { overflow-x: auto; }
  figure.wide svg { min-width: 620px; }
  .facts td:first-child { width: auto; }
  main { padding: 24px 14px 60px; }
}
@media print { body { background: none; } figure, .tile, .table, .sample { break-inside: avoid; } }
`;
