/** Ctrl-C and SIGTERM: the first asks to stop and keep everything, the second leaves at once. */
export interface Interrupt extends Disposable {
  readonly signal: AbortSignal;
}

/** @param doing  what is done about it, as the user is told */
export function interruptible(doing: string): Interrupt {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(130);
    process.stderr.write(`\n${name}: ${doing}; once more leaves at once\n`);
    controller.abort(name);
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      process.off("SIGINT", onSignal);
      process.off("SIGTERM", onSignal);
    },
  };
}
