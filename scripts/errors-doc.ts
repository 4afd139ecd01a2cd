/**
 * Writes docs/errors.md from the catalogue in src/base/errors.ts: `node scripts/errors-doc.ts`.
 *
 * The text of an entry is the docstring of its class, so that the page cannot say anything else than the source.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export interface CatalogueEntry {
  readonly name: string;
  readonly code: string;
  /** The docstring, one string per paragraph; the first says what happened. */
  readonly paragraphs: readonly string[];
}

export const catalogueFile: URL = new URL("../src/base/errors.ts", import.meta.url);
export const errorsPage: URL = new URL("../docs/errors.md", import.meta.url);

/** @param source  text of src/base/errors.ts */
export function readCatalogue(source: string): CatalogueEntry[] {
  const entry =
    /\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\s*export class (\w+) extends BaseError \{\s*readonly code = "(\w+)"/g;
  return [...source.matchAll(entry)].map(([, comment, name, code]) => ({
    name: name!,
    code: code!,
    paragraphs: comment!
      .replaceAll(/^\s*\* ?/gm, "")
      .trim()
      .split(/\n\s*\n/)
      .map((paragraph) => paragraph.replaceAll(/\s+/g, " ")),
  }));
}

/** The whole page. */
export function renderErrorsPage(entries: readonly CatalogueEntry[]): string {
  const rows = entries.map(
    ({ name, code, paragraphs }) => `| [\`${code}\`](#${code.toLowerCase()}) | ${name} | ${paragraphs[0]} |`,
  );
  const sections = entries.map(
    ({ name, code, paragraphs }) => `## ${code}\n\n\`${name}\`. ${paragraphs.join("\n\n")}\n`,
  );
  return `${intro}\n| code | class | what happened |\n|---|---|---|\n${rows.join("\n")}\n\n${sections.join("\n")}`;
}

const intro = `# Errors

<!-- Made by scripts/errors-doc.ts from src/base/errors.ts. Change the docstrings there and run
     \`node scripts/errors-doc.ts\`. -->

Every error that Minke throws on purpose has three lines: what happened, with the real values; why that is a rule; and
what to type next.

\`\`\`
ConfigError: train.json: model.hidenSize is not a known setting
  why: unknown settings are refused, so that a misspelt one is never ignored; model knows hiddenSize, ...
  fix: write model.hiddenSize
\`\`\`

Codes are stable across versions; messages are not. Programs read \`error.code\` and \`error.fields\`, never the text, and
recognise an error of Minke with \`BaseError.isInstance(error)\`. The command line leaves with 1 for these errors, with
2 for a bug of ours (\`ERR_INTERNAL\` in a run's events), and with 130 after an interruption that can be resumed.
`;

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(errorsPage, renderErrorsPage(readCatalogue(readFileSync(catalogueFile, "utf8"))));
}
