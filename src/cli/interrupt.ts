/** Ctrl-C, SIGTERM and a terminal that is closed: the first asks to stop and keep everything, the second leaves at once. */
export interface Interrupt extends Disposable {
  readonly signal: AbortSignal;
}

/** SIGHUP comes when the window or the connection is closed; Node dies of it, under `nohup` too. */
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** @param doing  what is done about it, as the user is told; null where another process tells */
export function interruptible(doing: string | null): Interrupt {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => {
    // Not a second request: a shell hangs up on its jobs, and the system on the terminal's, at the same time.
    if (name === "SIGHUP" && controller.signal.aborted) return;
    if (controller.signal.aborted) process.exit(130);
    if (doing !== null) process.stderr.write(`\n${name}: ${doing}; once more leaves at once\n`);
    controller.abort(name);
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      for (const name of SIGNALS) process.off(name, onSignal);
    },
  };
}
