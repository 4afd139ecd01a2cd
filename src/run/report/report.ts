/** Writes `report.md` and `report.html` into a run folder, from its events alone. */
import { join } from "node:path";
import { writeFileAtomic } from "../files/atomicFile.ts";
import { runPaths } from "../folder/folder.ts";
import { readEvents } from "../log/eventReader.ts";
import { collectHistory } from "../log/history.ts";
import { reportData } from "./reportData.ts";
import { reportHtml } from "./reportHtml.ts";
import { reportMarkdown } from "./reportMarkdown.ts";

export interface WrittenReport {
  readonly markdown: string;
  readonly html: string;
}

/**
 * The run may still be going: the report then tells of it so far.
 *
 * @returns  the paths of the two files
 * @throws   {RunError} if the folder has no event log, or nothing has begun in it
 */
export async function writeReport(runFolder: string): Promise<WrittenReport> {
  const { root, events } = runPaths(runFolder);
  const data = reportData(await collectHistory(readEvents(events)));
  const written = { markdown: join(root, "report.md"), html: join(root, "report.html") };
  await writeFileAtomic(written.markdown, reportMarkdown(data));
  await writeFileAtomic(written.html, reportHtml(data));
  return written;
}
