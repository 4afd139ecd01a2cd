/** Whether another program is installed here, and the script that installs it: peers live in environments of their own, in a clone. */
import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export interface PeerSetup {
  readonly who: string;
  /** In bench/peers. */
  readonly script: string;
  /** Where the package lies in that folder; `*` stands for one name, whatever it is. */
  readonly package: readonly string[];
}

/** bench/peers of the clone that this program belongs to. */
export const PEERS_FOLDER: string = join(
  dirname(fileURLToPath(import.meta.url)),
  ...["..", "..", ".."],
  ...["bench", "peers"],
);

export const TORCH: PeerSetup = {
  who: "PyTorch",
  script: "setup.sh",
  // The package and not python itself: a set-up that was interrupted leaves an environment without it.
  package: [".venv", "lib", "*", "site-packages", "torch", "__init__.py"],
};

export const JAX_JS: PeerSetup = {
  who: "jax-js",
  script: "setup_js.sh",
  package: [".js", "node_modules", "@jax-js", "jax", "package.json"],
};

export function isSetUp(setup: PeerSetup, folder: string = PEERS_FOLDER): boolean {
  return setup.package
    .reduce<readonly string[]>((paths, name) => paths.flatMap((path) => entries(path, name)), [folder])
    .some((path) => existsSync(path));
}

function entries(folder: string, name: string): readonly string[] {
  if (name !== "*") return [join(folder, name)];
  return existsSync(folder) ? readdirSync(folder).map((entry) => join(folder, entry)) : [];
}

/** In one line, what to type. */
export function howToSetUp({ who, script }: PeerSetup): string {
  return `${who} is not set up: bench/peers/${script} does it`;
}
