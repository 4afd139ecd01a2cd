/** Prints how large the house is, room by room, and what the published package weighs: part of every change. */
import { globSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";

const root = dirname(import.meta.dirname);

function countLines(patterns: readonly string[]): { files: number; lines: number } {
  const paths = globSync([...patterns], {
    cwd: root,
    exclude: (path) => /node_modules|target|\.venv/.test(path),
  });
  const lines = paths.reduce(
    (sum, path) => sum + readFileSync(join(root, path), "utf8").split("\n").length - 1,
    0,
  );
  return { files: paths.length, lines };
}

const rooms = globSync("src/*/", { cwd: root }).map((path) => path.replaceAll("\\", "/").replace(/\/$/, ""));
const rows = rooms.sort().map((room) => {
  const all = countLines([`${room}/**/*.ts`]);
  const tests = countLines([`${room}/**/*.test.ts`]);
  return { room, files: all.files - tests.files, lines: all.lines - tests.lines, tests: tests.lines };
});
const rust = countLines(["native/*/src/**/*.rs"]);
rows.push({ room: "native (Rust, its tests included)", files: rust.files, lines: rust.lines, tests: 0 });
const shared = countLines(["test/**/*.ts"]);
rows.push({ room: "test", files: shared.files, lines: 0, tests: shared.lines });

console.log(`${"room".padEnd(36)}${"files".padStart(7)}${"lines".padStart(8)}${"tests".padStart(8)}`);
for (const { room, files, lines, tests } of rows) {
  console.log(
    `${room.padEnd(36)}${String(files).padStart(7)}${String(lines).padStart(8)}${String(tests).padStart(8)}`,
  );
}
const dist = globSync("dist/**/*.js", { cwd: root }).reduce(
  (sum, path) => sum + statSync(join(root, path)).size,
  0,
);
console.log(`dist/ holds ${(dist / 1024).toFixed(0)} KiB of JavaScript`);
