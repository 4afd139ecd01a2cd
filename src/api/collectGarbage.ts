/**
 * Hands back what preparing left behind: a heap that has grown on texts and tokens, and is not needed for tensors.
 *
 * V8 collects its old space only when that has grown again, and a step of training allocates too little for it: a run
 * would carry 150 MB of dead texts along for hundreds of steps, and then let them fall. Once, before the first tensor.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { loadAddon } from "../tensor/index.ts";

export function collectGarbage(): void {
  const collect = globalThis.gc ?? exposedGc();
  // The last resort also shrinks the nursery, which texts have grown to its largest size.
  collect?.({ type: "major", execution: "sync", flavor: "last-resort" });
  // Texts in buffers leave holes in malloc's heap, which it gives back by itself at its end only.
  loadAddon().addon?.trimHeap();
}

/** V8 shows `gc` to contexts that are made while the flag is set; this program's own globals stay as they are. */
function exposedGc(): NodeJS.GCFunction | undefined {
  setFlagsFromString("--expose-gc");
  const found: unknown = runInNewContext("globalThis.gc");
  setFlagsFromString("--no-expose-gc");
  return typeof found === "function" ? (found as NodeJS.GCFunction) : undefined;
}
