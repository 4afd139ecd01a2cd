/**
 * Holds the walls of the house: which room may import which, no circles, sizes, words that model/ must not say.
 *
 * Read from the sources as text, types included: a type-only import is a dependency too.
 */
import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";
import { describe, expect, test } from "vitest";

const root = dirname(import.meta.dirname);
const sourceRoot = join(root, "src");

/** Floors: a room imports rooms on lower floors only. Changing this table is an architectural decision (docs/log). */
const floors: Readonly<Record<string, number>> = {
  base: 1,
  run: 2,
  tensor: 3,
  text: 3,
  model: 4,
  parallel: 5,
  checkpoint: 5,
  train: 6,
  engine: 6,
  planner: 6,
  posttrain: 7,
  server: 7,
  api: 8,
  cli: 9,
};

/** Where Node's own modules may be imported: everything else runs in a browser. */
const nodeAllowed = [
  /^base\//,
  /^run\//,
  /^checkpoint\//,
  /^cli\//,
  /^tensor\/backend\/native\//,
  /^train\/(data|eval)\//,
  /^api\//,
  /^parallel\/communicator\/mpi\//,
];

interface SourceFile {
  readonly path: string;
  readonly text: string;
  readonly imports: readonly string[];
}

const sources: readonly SourceFile[] = globSync("**/*.ts", { cwd: sourceRoot }).map((path) => {
  const text = readFileSync(join(sourceRoot, path), "utf8");
  const imports = [...text.matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)].map((match) => match[1]!);
  return { path, text, imports };
});
const product = sources.filter(({ path }) => !path.endsWith(".test.ts"));

function roomOf(path: string): string {
  return path.includes("/") ? path.split("/")[0]! : "index";
}

function resolved(from: string, specifier: string): string {
  return normalize(join(dirname(from), specifier));
}

function lines(text: string): number {
  return text.split("\n").length - 1;
}

describe("the house", () => {
  test("has sources in known rooms only", () => {
    const rooms = new Set(product.map(({ path }) => roomOf(path)));
    expect([...rooms].filter((room) => room !== "index" && floors[room] === undefined)).toEqual([]);
  });

  test("has arrows that all point down", () => {
    const wrong = product.flatMap(({ path, imports }) =>
      imports
        .filter((specifier) => specifier.startsWith("."))
        .map((specifier) => ({ path, target: resolved(path, specifier) }))
        .filter(({ target }) => roomOf(target) !== roomOf(path))
        .filter(({ target }) => (floors[roomOf(path)] ?? 9) <= (floors[roomOf(target)] ?? 10))
        .map(({ target }) => `${path} -> ${target}: a room imports lower floors only`),
    );
    expect(wrong).toEqual([]);
  });

  test("is entered through each room's index.ts", () => {
    const wrong = product.flatMap(({ path, imports }) =>
      imports
        .filter((specifier) => specifier.startsWith("."))
        .map((specifier) => resolved(path, specifier))
        .filter((target) => roomOf(target) !== roomOf(path) && target !== `${roomOf(target)}/index.ts`)
        .map((target) => `${path} -> ${target}: enter through ${roomOf(target)}/index.ts`),
    );
    expect(wrong).toEqual([]);
  });

  test("has no circle of files, type-only imports counted", () => {
    const edges = new Map(
      product.map(({ path, imports }) => [
        path,
        imports.filter((s) => s.startsWith(".")).map((s) => resolved(path, s)),
      ]),
    );
    expect(findCircle(edges)).toBeNull();
  });

  test("imports Node's modules only where a machine is meant", () => {
    const wrong = product
      .filter(({ imports }) => imports.some((specifier) => specifier.startsWith("node:")))
      .filter(({ path }) => !nodeAllowed.some((pattern) => pattern.test(path)))
      .map(({ path }) => path);
    expect(wrong).toEqual([]);
  });

  test("imports only files that exist", () => {
    const missing = sources.flatMap(({ path, imports }) =>
      imports
        .filter((specifier) => specifier.startsWith("."))
        .map((specifier) => join(sourceRoot, dirname(path), specifier))
        .filter((target) => !existsSync(target))
        .map((target) => `${path} -> ${relative(root, target)}`),
    );
    expect(missing).toEqual([]);
  });
});

describe("sizes", () => {
  test("no source file is longer than 400 lines", () => {
    expect(
      sources.filter(({ text }) => lines(text) > 400).map(({ path, text }) => `${path}: ${lines(text)}`),
    ).toEqual([]);
  });

  test("no folder holds more than 24 product files, and none is named utils, helpers or common", () => {
    const byFolder = Map.groupBy(product, ({ path }) => dirname(path));
    const crowded = [...byFolder].filter(([, files]) => files.length > 24).map(([folder]) => folder);
    const vague = [...byFolder.keys()].filter((folder) => /(^|\/)(utils|helpers|common)(\/|$)/.test(folder));
    expect({ crowded, vague }).toEqual({ crowded: [], vague: [] });
  });

  test("there are at least as many lines of tests as of sources", () => {
    const testFiles = globSync(["src/**/*.test.ts", "test/**/*.ts"], { cwd: root });
    const testLines = testFiles.reduce((sum, path) => sum + lines(readFileSync(join(root, path), "utf8")), 0);
    const sourceLines = product.reduce((sum, { text }) => sum + lines(text), 0);
    expect(testLines).toBeGreaterThanOrEqual(sourceLines);
  });
});

describe("src/model", () => {
  test("is mathematics: it names no rank, device, file, promise or memory", () => {
    const forbidden = /\b(rank|world|await|async|dispose|process|Promise)\b/;
    const wrong = product
      .filter(({ path }) => path.startsWith("model/"))
      .flatMap(({ path, text }) =>
        withoutComments(text)
          .split("\n")
          .filter((line) => forbidden.test(line))
          .map((line) => `${path}: ${line.trim()}`),
      );
    expect(wrong).toEqual([]);
  });
});

describe("the README", () => {
  test("points to files that exist in every row of its table of places", () => {
    const readme = readFileSync(join(root, "README.md"), "utf8");
    const section = readme.split(/^## Where is it\?$/m)[1]?.split(/^## /m)[0] ?? "";
    const places = [...section.matchAll(/`((?:src|native)\/[^`]+)`/g)].map((match) => match[1]!);
    expect(places.length).toBeGreaterThan(15);
    expect(places.filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });
});

function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, "").replaceAll(/\/\/.*$/gm, "");
}

function findCircle(edges: ReadonlyMap<string, readonly string[]>): string | null {
  const done = new Set<string>();
  const visit = (path: string, trail: readonly string[]): string | null => {
    if (trail.includes(path)) return [...trail.slice(trail.indexOf(path)), path].join(" -> ");
    if (done.has(path)) return null;
    for (const target of edges.get(path) ?? []) {
      const circle = visit(target, [...trail, path]);
      if (circle !== null) return circle;
    }
    done.add(path);
    return null;
  };
  for (const path of edges.keys()) {
    const circle = visit(path, []);
    if (circle !== null) return circle;
  }
  return null;
}
