// Builds the native addon where cargo is found, and says in one line what happens where it is not.
// Plain JavaScript without dependencies: npm may run it with the machine's own Node.
import { spawnSync } from "node:child_process";
import { copyFileSync, renameSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const libraryNames = {
  linux: "libminke_binding.so",
  darwin: "libminke_binding.dylib",
  win32: "minke_binding.dll",
};

/**
 * Compiles native/ and puts the addon at native/minke.<platform>-<arch>.node.
 *
 * @param {string} root  the package's folder
 * @returns {"built" | "no cargo" | "failed"}
 */
export function buildNative(root) {
  const native = join(root, "native");
  const started = Date.now();
  if (spawnSync("cargo", ["--version"], { stdio: "ignore" }).status !== 0) {
    console.log(
      "native addon not built, the reference backend will be used (correct, slow): install Rust from https://rustup.rs, then run: node scripts/build-native.js",
    );
    return "no cargo";
  }
  const cargo = spawnSync(
    "cargo",
    ["build", "--release", "--locked", "--quiet", "-p", "minke-binding", "--target-dir", "target"],
    { cwd: native, encoding: "utf8" },
  );
  const library = libraryNames[process.platform];
  if (cargo.status !== 0 || library === undefined) {
    const why = library === undefined ? `no library name for ${process.platform}` : (cargo.stderr ?? "");
    console.error(`${why}\nnative addon not built (see above), the reference backend will be used`);
    return "failed";
  }
  const addon = join(native, `minke.${process.platform}-${process.arch}.node`);
  replaceFile(join(native, "target", "release", library), addon);
  console.log(`native addon built in ${((Date.now() - started) / 1000).toFixed(1)} s`);
  return "built";
}

/** Copies beside the target and renames: a process that has the old file loaded keeps it, nobody sees half a file. */
function replaceFile(from, to) {
  const temporary = `${to}.${process.pid}.tmp`;
  try {
    copyFileSync(from, temporary);
    renameSync(temporary, to);
  } finally {
    rmSync(temporary, { force: true });
  }
}

const thisFile = fileURLToPath(import.meta.url);
if (process.argv[1] !== undefined && resolve(process.argv[1]) === thisFile) {
  if (buildNative(dirname(dirname(thisFile))) === "failed") process.exitCode = 1;
}
