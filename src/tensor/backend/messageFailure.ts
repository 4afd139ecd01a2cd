/** What backends say of messages that failed, in the same words. */

/** Why a rank's peers end when it is disposed too early. */
export const DISPOSED_WITH_MESSAGES = "its queue was disposed with messages open";

export const MESSAGE_ADVICE = {
  why: "ranks that exchange messages go on together or end together",
  fix: "if another rank is named, its own error is the cause; else see that all ranks run the same commands on the same data",
} as const;

/** How long a rank waits for one ticket's messages before it gives up: longer than any checkpoint takes to write. */
export const MESSAGE_TIMEOUT_SECONDS = 600;
