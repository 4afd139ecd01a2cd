/** A sweep as a table: the best layouts, and how many the rules refuse. */
import { formatBytes, formatShare } from "../../base/index.ts";
import type { Sweep } from "../../planner/index.ts";
import { table } from "./table.ts";
import { billions } from "./trainingText.ts";

const SHOWN = 20;

export function sweepText({ rows, refused }: Sweep, seconds: number): string[] {
  const fitting = rows.filter(({ fits }) => fits).length;
  const head = ["layout", "micro-batches", "step", "tokens a day", "MFU", "bubble", "memory", ""];
  const body = rows.slice(0, SHOWN).map((row) => {
    const { pp, dp, ep, schedule, microBatchRows } = row.layout;
    return [
      `pp=${pp},dp=${dp},ep=${ep},rows=${microBatchRows} ${schedule}`,
      String(row.microBatches),
      `${row.stepSeconds.toFixed(2)} s`,
      billions(row.tokensPerDay),
      formatShare(row.causalMfu),
      formatShare(row.bubbleShare),
      formatBytes(row.memoryBytes),
      row.fits ? "" : "does not fit",
    ];
  });
  return [
    `${rows.length} layouts in ${seconds.toFixed(1)} s, uncalibrated; ${fitting} fit${rows.length > SHOWN ? `; the first ${SHOWN}` : ""}`,
    ...table([head, ...body]),
    ...(refused.length === 0 ? [] : ["", "Refused"]),
    ...refused.map(({ count, problem }) => `  ${count}: ${problem.what}`),
  ];
}
