import { describe, expect, test } from "vitest";
import { coordinate, escapeMarkup, htmlTable } from "./markup.ts";

describe("escapeMarkup", () => {
  test("leaves nothing that could open a tag, an attribute or an entity", () => {
    expect(escapeMarkup(`<img src="x" onerror='a()'> & co`)).toBe(
      "&lt;img src=&quot;x&quot; onerror=&#39;a()&#39;&gt; &amp; co",
    );
  });

  test("shows control characters and keeps line ends, tabs and every letter", () => {
    expect(escapeMarkup("a\u0000b\u001b[2J\tc\nd 鲸 🐋")).toBe("a\ufffdb\ufffd[2J\tc\nd 鲸 🐋");
  });
});

describe("coordinate", () => {
  test("has one decimal at most", () => {
    expect([1, 1.25, 99.96, -0.04].map(coordinate)).toEqual(["1", "1.3", "100", "0"]);
  });
});

describe("htmlTable", () => {
  test("has a head and a row for each row", () => {
    const table = htmlTable(
      ["a", "b"],
      [
        ["1", "2"],
        ["3", "4"],
      ],
    );
    expect(table).toContain("<thead><tr><th>a</th><th>b</th></tr></thead>");
    expect(table.match(/<tr>/g)).toHaveLength(3);
  });
});
