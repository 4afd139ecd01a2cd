import { createRequire } from "node:module";

/** Of the package, as package.json says it. */
export const version: string = (createRequire(import.meta.url)("../../package.json") as { version: string })
  .version;
