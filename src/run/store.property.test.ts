import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { exampleEvents } from "../../test/support/exampleEvents.ts";
import { createRun, runPaths } from "./folder/folder.ts";
import { openEventLog } from "./log/eventLog.ts";
import { openRunStore } from "./store.ts";

/** What may happen to the runs root between two looks at the index. */
type Happening =
  | { readonly kind: "steps"; readonly run: string; readonly count: number }
  | { readonly kind: "end"; readonly run: string }
  | { readonly kind: "remove"; readonly run: string }
  | { readonly kind: "lose index" }
  | { readonly kind: "look" };

const run = fc.constantFrom("a", "b", "c");
const happening: fc.Arbitrary<Happening> = fc.oneof(
  fc.record({ kind: fc.constant("steps" as const), run, count: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ kind: fc.constant("end" as const), run }),
  fc.record({ kind: fc.constant("remove" as const), run }),
  fc.record({ kind: fc.constant("lose index" as const) }),
  fc.record({ kind: fc.constant("look" as const) }),
);

/** The run folders as they should be: steps done, and whether the run was ended. */
type Model = Map<string, { steps: number; isEnded: boolean }>;

async function happen(root: string, model: Model, event: Happening): Promise<void> {
  if (event.kind === "lose index") await rm(join(root, "index.sqlite"), { force: true });
  if (event.kind === "look") await expectIndex(root, model);
  if (event.kind === "remove") {
    await rm(join(root, event.run), { recursive: true, force: true });
    model.delete(event.run);
  }
  if (event.kind !== "steps" && event.kind !== "end") return;
  const path = join(root, event.run);
  const isNew = !model.has(event.run);
  if (isNew) await (await createRun(path, { version: "0", command: [], config: {} })).close();
  const state = model.get(event.run) ?? { steps: 0, isEnded: false };
  model.set(event.run, state);
  const { log } = await openEventLog(runPaths(path).events);
  if (isNew) log.emit({ ...exampleEvents["run.started"], runId: event.run });
  if (event.kind === "end") log.emit(exampleEvents["run.completed"]);
  else {
    for (let index = 0; index < event.count; index++) {
      state.steps++;
      log.emit({ ...exampleEvents["step.completed"], step: state.steps });
    }
  }
  state.isEnded ||= event.kind === "end";
  await log.close();
}

async function expectIndex(root: string, model: Model): Promise<void> {
  const store = await openRunStore(root);
  const rows = (await store.list()).map(({ folder, step, status }) => [folder, step, status]);
  store.close();
  const expected = [...model].map(([folder, { steps, isEnded }]) => [
    folder,
    steps,
    isEnded ? "completed" : "killed",
  ]);
  expect(rows.toSorted()).toEqual(expected.toSorted());
}

describe("the index", () => {
  test("tells what the folders hold, whatever has happened to them since it last looked", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(happening, { maxLength: 14 }), async (happenings) => {
        const root = await mkdtemp(join(tmpdir(), "minke-index-"));
        const model: Model = new Map();
        for (const event of happenings) await happen(root, model, event);
        await expectIndex(root, model);
        await rm(root, { recursive: true });
      }),
      { numRuns: 25 },
    );
  });
});
