/** What a rank needs and does not get: ports, memory. One clear message, soon, and nothing left over. */
import { execFileSync } from "node:child_process";
import { createServer, type Server } from "node:net";
import { totalmem } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { builtEntry } from "../support/minke.ts";
import { mpiFlavours, occurrences, startRanks } from "../support/mpirun.ts";
import { rankedArguments } from "../support/rankedRun.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { writeTrainingText } from "../support/trainingText.ts";

/** The start of everything included. */
const SOON_MS = 40_000;

describe.skipIf(!mpiFlavours.includes("openmpi"))("with Open MPI", { timeout: 120_000 }, () => {
  test("a range of ports in which none is free ends the job with a message that names it", async () => {
    const first = await takePorts(2);
    const begin = performance.now();
    const job = startRanks(2, "ending.ts", ["leave"], {
      flags: ["btl=tcp,self", `btl_tcp_port_min_v4=${first}`, "btl_tcp_port_range_v4=2"].flatMap((word) => [
        "--mca",
        ...word.split("="),
      ]),
    });
    const { code, stdout, stderr } = await job.finished;
    expect(code).not.toBe(0);
    expect(performance.now() - begin).toBeLessThan(SOON_MS);
    expect(stdout).not.toContain("has joined");
    expect(stderr).toContain(`no port available in the range [${first}..${first + 2}]`);
    expect(await job.survivors()).toEqual([]);
  });
});

describe.each(mpiFlavours)("with %s", { timeout: 120_000 }, (flavour) => {
  test.skipIf(process.platform !== "linux")(
    "a rank that gets no memory says how much it wanted, and ends all of them",
    async () => {
      const cwd = await scratchFolder();
      const entry = await builtEntry();
      const args = rankedArguments({
        text: await writeTrainingText(cwd),
        run: join(cwd, "run"),
        steps: 4,
      });
      const starved = ["bash", "-c", `ulimit -v ${addressSpace()} && exec "$@"`, "starved"];
      const others = [...args, ":", "-n", "1", ...starved, process.execPath, entry, ...args];
      const begin = performance.now();
      const job = startRanks(1, entry, others, { flavour, cwd });
      const { code, stderr } = await job.finished;
      expect(code).not.toBe(0);
      expect(performance.now() - begin).toBeLessThan(SOON_MS);
      expect(occurrences(stderr, "ends the job: ")).toBe(1);
      expect(stderr).toMatch(/rank 1 of 2 on \S+ ends the job: the native backend does not start/);
      expect(stderr).toMatch(/why: cannot reserve \d+ bytes: .*memory/);
      expect(stderr).toContain("fix: let this process have as much address space");
      expect(await job.survivors()).toEqual([]);
    },
  );
});

/** The first of some neighbouring ports, all of which this process holds until the test ends. */
async function takePorts(count: number): Promise<number> {
  for (let first = 41_000; ; first += count) {
    const servers: Server[] = [];
    try {
      for (let port = first; port < first + count; port++) servers.push(await listenAt(port));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
      for (const server of servers) server.close();
      continue;
    }
    onTestFinished(() => {
      for (const server of servers) server.close();
    });
    return first;
  }
}

function listenAt(port: number): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(port, "0.0.0.0", () => resolve(server));
  });
}

/** Kilobytes that Node needs and half of what a rank's arena asks for besides. */
function addressSpace(): number {
  const program = `require("fs").readFileSync("/proc/self/status", "utf8").match(/VmPeak:\\s+(\\d+)/)[1]`;
  const peak = execFileSync(process.execPath, ["-p", program], { encoding: "utf8" });
  return Number(peak) + Math.floor(totalmem() / 2048);
}
