// Builds what `npm ci` promises: dist/ from src/, the native addon where cargo is found, MPI's where mpicc is.
// Plain JavaScript without dependencies: npm may run it with the machine's own Node.
import { spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildMpi } from "./build-mpi.js";
import { buildNative } from "./build-native.js";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

rmSync(join(root, "dist"), { recursive: true, force: true });
const started = Date.now();
const tsc = spawnSync(
  process.execPath,
  [join(root, "node_modules", "typescript", "bin", "tsc"), "-p", root],
  {
    stdio: "inherit",
  },
);
if (tsc.status !== 0) process.exit(tsc.status ?? 1);
console.log(`dist/ built in ${((Date.now() - started) / 1000).toFixed(1)} s`);

buildNative(root);
buildMpi(root);
