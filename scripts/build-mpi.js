// Builds the MPI addon for every MPI library whose mpicc is found, and says in one line what to install where none is.
// Plain JavaScript without dependencies: npm may run it with the machine's own Node.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, renameSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const INSTALL =
  "install Open MPI with its compiler (Debian, Ubuntu: apt install openmpi-bin libopenmpi-dev; macOS: brew install open-mpi), then run: node scripts/build-mpi.js";

/** What mpi.h defines says whose it is; the two kinds of library have incompatible binary interfaces. */
const FLAVOURS = [
  { name: "openmpi", macro: "OPEN_MPI" },
  { name: "mpich", macro: "MPICH_VERSION" },
];

/**
 * Compiles native/mpi/ to native/minke-mpi-<flavour>.<platform>-<arch>.node, once for each flavour.
 *
 * @param {string} root  the package's folder
 * @param {string} [folder]  where the addons go; native/ by default
 * @param {readonly string[]} [more]  options of the compiler
 * @returns {readonly string[] | "no mpicc" | "failed"} the flavours that were built
 */
export function buildMpi(root, folder = join(root, "native"), more = []) {
  const compilers = findCompilers();
  if (compilers.length === 0) {
    console.log(
      `MPI addon not built, it is needed for ranks on several machines and for nothing else: ${INSTALL}`,
    );
    return "no mpicc";
  }
  const headers = headerFolder(root);
  if (headers === undefined) {
    console.error(
      "MPI addon not built: Node's headers (node_api.h) are not here; run: npm install node-api-headers, then: node scripts/build-mpi.js",
    );
    return "failed";
  }
  const options = ["-I", headers, ...more];
  const built = compilers.filter(({ command, flavour }) => compile(root, folder, command, flavour, options));
  if (built.length < compilers.length) return "failed";
  const names = built.map(({ command, flavour }) => `${flavour} (${command})`);
  console.log(`MPI addon built for ${names.join(" and ")}`);
  return built.map(({ flavour }) => flavour);
}

/** One compiler a flavour. MPICC, as other MPI programs' builds read it, names the only one to use. */
function findCompilers() {
  const { MPICC } = process.env;
  const commands = MPICC ? [MPICC] : ["mpicc", "mpicc.openmpi", "mpicc.mpich"];
  const found = new Map();
  for (const command of commands) {
    const flavour = flavourOf(command);
    if (flavour !== undefined && !found.has(flavour)) found.set(flavour, { command, flavour });
  }
  return [...found.values()];
}

function flavourOf(command) {
  const { status, stdout } = spawnSync(command, ["-E", "-dM", "-x", "c", "-"], {
    input: "#include <mpi.h>\n",
    encoding: "utf8",
  });
  if (status !== 0) return undefined;
  return FLAVOURS.find(({ macro }) => new RegExp(`#define ${macro}\\b`).test(stdout))?.name;
}

/** Beside the running Node, in the npm package that holds nothing else, or where distributions put them. */
function headerFolder(root) {
  const folders = [join(dirname(dirname(process.execPath)), "include", "node")];
  try {
    const manifest = createRequire(join(root, "package.json")).resolve("node-api-headers/package.json");
    folders.push(join(dirname(manifest), "include"));
  } catch {
    // Not installed: a development dependency, which a package installed from the registry does not bring.
  }
  folders.push("/usr/include/node", "/usr/local/include/node");
  return folders.find((folder) => existsSync(join(folder, "node_api.h")));
}

function compile(root, folder, command, flavour, more) {
  const folderOfSources = join(root, "native", "mpi");
  const names = readdirSync(folderOfSources).filter((name) => name.endsWith(".c"));
  const sources = names.map((name) => join(folderOfSources, name));
  const target = join(folder, `minke-mpi-${flavour}.${process.platform}-${process.arch}.node`);
  // Renamed when whole: a process that has the old file loaded keeps it, nobody sees half a file.
  const temporary = `${target}.${process.pid}.tmp`;
  const shared = process.platform === "darwin" ? ["-bundle", "-undefined", "dynamic_lookup"] : ["-shared"];
  const options = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-fPIC", "-pthread", ...shared];
  const { status, stderr } = spawnSync(command, [...options, ...more, ...sources, "-o", temporary], {
    encoding: "utf8",
  });
  if (stderr) console.error(stderr.trimEnd());
  if (status !== 0) {
    rmSync(temporary, { force: true });
    console.error(`MPI addon not built: ${command} failed (see above)`);
    return false;
  }
  renameSync(temporary, target);
  return true;
}

const thisFile = fileURLToPath(import.meta.url);
if (process.argv[1] !== undefined && resolve(process.argv[1]) === thisFile) {
  const [folder, ...more] = process.argv.slice(2);
  if (!Array.isArray(buildMpi(dirname(dirname(thisFile)), folder, more))) process.exitCode = 1;
}
