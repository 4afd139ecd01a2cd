/** Markup as text, with everything that was not written here escaped: a model may write any character. */

import { printable } from "../terminal/printable.ts";

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

export function escapeMarkup(text: string): string {
  return printable(text).replaceAll(/[&<>"']/g, (letter) => entities[letter]!);
}

/** A coordinate: a tenth of a pixel is finer than any screen shows. */
export function coordinate(value: number): string {
  return String(Math.round(value * 10) / 10);
}

/** @param rows  cells are markup already */
export function htmlTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = (tag: "th" | "td", row: readonly string[]) =>
    row.map((cell) => `<${tag}>${cell}</${tag}>`).join("");
  const body = rows.map((row) => `<tr>${cells("td", row)}</tr>`).join("\n");
  return `<div class="table"><table>\n<thead><tr>${cells("th", head)}</tr></thead>\n<tbody>\n${body}\n</tbody>\n</table></div>`;
}
