/** Events as lines of JSON, and back. */
import { BaseError, invariant, RunError } from "./errors.ts";
import { type ErrorRecord, eventSchema, type RunEvent, type RunEventType } from "./events.ts";
import { isPlainObject } from "./json.ts";

/** One line, without its newline. */
export function formatEvent(event: RunEvent): string {
  return JSON.stringify(event, (key, value: unknown) => {
    invariant(
      typeof value !== "number" || Number.isFinite(value),
      `${key} of the event ${event.type} is ${String(value)}, and JSON has no such number`,
    );
    return value;
  });
}

/**
 * @param where  the line's place as a user can find it: `runs/a/events.jsonl line 12`
 * @throws       {RunError} if the line is damaged, or is of a newer version
 */
export function parseEvent(line: string, where: string): RunEvent {
  const value = parseJson(line, where);
  if (!isPlainObject(value)) throw damagedLine(line, where, undefined);
  const { schema, type, time } = value;
  if (typeof type !== "string" || typeof time !== "string") throw damagedLine(line, where, undefined);
  if (schema !== eventSchema || !Object.hasOwn(eventTypes, type)) {
    throw new RunError(`${where} holds an event ${type} of schema ${String(schema)}`, {
      why: `this version of minke knows schema ${eventSchema} and not every event of later versions`,
      fix: "read the run with the version of minke that wrote it, or a newer one",
      fields: { where, type, schema },
    });
  }
  return value as unknown as RunEvent;
}

function parseJson(line: string, where: string): unknown {
  try {
    return JSON.parse(line);
  } catch (error) {
    throw damagedLine(line, where, error);
  }
}

function damagedLine(line: string, where: string, cause: unknown): RunError {
  const shown = line.length <= 60 ? line : `${line.slice(0, 57)}...`;
  return new RunError(`${where} is not an event: ${JSON.stringify(shown)}`, {
    why: "every line of an event log is one JSON object with schema, type and time",
    fix: "restore the file from a copy, or delete this line: the other events stay readable",
    fields: { where, line: shown },
    cause,
  });
}

/** `null` for a number that is not finite: the form in which events carry it. */
export function finiteOrNull(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

/** An error as an event carries it. What Minke did not throw on purpose is a bug of Minke and keeps its stack. */
export function describeError(error: unknown): ErrorRecord {
  if (BaseError.isInstance(error)) {
    const { code, name, what, why, fix } = error;
    return { code, name, what, why, fix, stack: null };
  }
  const known = error instanceof Error ? error : new Error(String(error));
  return {
    code: "ERR_INTERNAL",
    name: known.name,
    what: known.message,
    why: "minke did not expect this: it is a bug in minke",
    fix: "please report it with the lines above and the run's events.jsonl",
    stack: known.stack ?? null,
  };
}

const eventTypes: Readonly<Record<RunEventType, true>> = {
  "run.started": true,
  "run.resumed": true,
  "data.prepared": true,
  "tokenizer.trained": true,
  "baselines.measured": true,
  "step.completed": true,
  "step.skipped": true,
  "router.bias": true,
  "evaluation.completed": true,
  "sample.generated": true,
  "checkpoint.written": true,
  "checkpoint.removed": true,
  "checkpoint.damaged": true,
  "run.phase": true,
  "run.warning": true,
  "run.interrupted": true,
  "run.completed": true,
  "run.failed": true,
};
