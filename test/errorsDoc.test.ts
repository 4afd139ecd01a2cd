import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { catalogueFile, errorsPage, readCatalogue, renderErrorsPage } from "../scripts/errors-doc.ts";
import * as errors from "../src/base/errors.ts";

const catalogue = readCatalogue(readFileSync(catalogueFile, "utf8"));

describe("docs/errors.md", () => {
  test("is what scripts/errors-doc.ts makes of the catalogue today", () => {
    expect(readFileSync(errorsPage, "utf8"), "run: node scripts/errors-doc.ts").toBe(
      renderErrorsPage(catalogue),
    );
  });

  test("holds every error class that there is, with its code", () => {
    const classes = Object.values(errors).filter(
      (value) => typeof value === "function" && value.prototype instanceof errors.BaseError,
    ) as (new (
      what: string,
      detail: errors.ErrorDetail,
    ) => errors.BaseError)[];
    const detail = { why: "", fix: "" };
    const known = classes.map((one) => `${one.name} ${new one("", detail).code}`);
    expect(catalogue.map(({ name, code }) => `${name} ${code}`).sort()).toEqual(known.sort());
  });

  test("says of each what happened and what to do", () => {
    for (const { name, paragraphs } of catalogue) {
      expect(paragraphs.length, `docstring of ${name}`).toBeGreaterThanOrEqual(2);
    }
  });
});
