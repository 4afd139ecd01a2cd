/**
 * What a terminal shows of what was written to it: obeys carriage return, line feed, clear line, wrapping on and off,
 * and knows colours. Any other sequence is an error.
 */
import { EventEmitter } from "node:events";

const esc = "\x1b";
export const colourSequence: RegExp = new RegExp(`${esc}\\[\\d+m`);
const sequenceOrLetter = new RegExp(`${esc}\\[\\??\\d*[A-Za-z]|[\\s\\S]`, "g");

export class Screen extends EventEmitter {
  readonly isTTY: boolean;
  columns: number;
  /** All that was written, as it was. */
  raw = "";
  readonly lines: string[] = [""];
  #column = 0;
  #isWrapping = true;

  constructor(columns: number, isTTY: boolean = true) {
    super();
    this.columns = columns;
    this.isTTY = isTTY;
  }

  write(text: string): void {
    this.raw += text;
    for (const [token] of text.matchAll(sequenceOrLetter)) this.#obey(token);
  }

  #obey(token: string): void {
    const last = this.lines.length - 1;
    if (token === "\n") {
      this.lines.push("");
      this.#column = 0;
    } else if (token === "\r") this.#column = 0;
    else if (token === "\x1b[2K") this.lines[last] = "";
    else if (token === "\x1b[?7l") this.#isWrapping = false;
    else if (token === "\x1b[?7h") this.#isWrapping = true;
    else if (colourSequence.test(token)) return;
    else if (token.startsWith(esc)) throw new Error(`unknown sequence ${JSON.stringify(token)}`);
    else this.#put(token);
  }

  #put(letter: string): void {
    if (this.#column >= this.columns && this.#isWrapping) {
      this.lines.push("");
      this.#column = 0;
    }
    const line = this.lines.at(-1)!;
    this.lines[this.lines.length - 1] = line.slice(0, this.#column) + letter;
    this.#column++;
  }
}
