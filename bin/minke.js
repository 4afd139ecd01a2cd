#!/usr/bin/env node
// Old syntax on purpose: this file must run far enough on any Node to say which one is needed.
var parts = process.versions.node.split(".").map(Number);
if (parts[0] < 22 || (parts[0] === 22 && parts[1] < 13)) {
  process.stderr.write(
    "minke: Node " +
      process.versions.node +
      " is too old\n" +
      "  why: minke uses node:sqlite and language features of Node 22.13 and later\n" +
      "  fix: install Node 22.13 or later; in a clone, `npm exec minke` uses the Node that npm ci brought\n",
  );
  process.exitCode = 1;
} else {
  import("../dist/cli/main.js").then(
    (cli) => cli.main(process.argv.slice(2)),
    (error) => {
      if (error && error.code === "ERR_MODULE_NOT_FOUND" && /dist/.test(String(error.message))) {
        process.stderr.write(
          "minke: dist/ is missing\n  why: a clone is built by `npm ci`, which compiles src/ into dist/\n  fix: run npm ci (or npm run build)\n",
        );
        process.exitCode = 1;
        return;
      }
      throw error;
    },
  );
}
