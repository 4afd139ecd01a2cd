/**
 * Hands back what preparing left behind: a heap that has grown on texts and tokens, and is not needed for tensors.
 *
 * V8 collects its old space only when that has grown again, and a step of training allocates too little for it: a run
 * would carry 150 MB of dead texts along for hundreds of steps, and then let them fall. Once, before the first tensor.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

export function collectGarbage(): void {
  // The flag shows `gc` to contexts that are made from now on; this program's own globals stay as they are.
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("globalThis.gc");
  setFlagsFromString("--no-expose-gc");
  // The last resort also shrinks the nursery, which texts have grown to its largest size.
  if (typeof collect === "function") collect({ type: "major", execution: "sync", flavor: "last-resort" });
}
