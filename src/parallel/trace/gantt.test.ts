import { runInNewContext } from "node:vm";
import { describe, expect, test } from "vitest";
import { planDualPipe } from "../schedule/dualPipe.ts";
import { plan1F1B } from "../schedule/oneForwardOneBackward.ts";
import { simulate } from "../simulate/simulate.ts";
import { ganttPage } from "./gantt.ts";
import { plotWidth } from "./ganttChart.ts";
import { ganttScript } from "./ganttScript.ts";
import { simulatedSpans } from "./simulated.ts";
import type { RankSpans, Span } from "./spans.ts";

const chunks = { forward: 1, backward: 2, weight: 1, overlapped: 3 };
const dualPipe = planDualPipe({ ranks: 4, microBatches: 8 });
const dualPipePage = page(simulatedSpans(dualPipe, simulate(dualPipe, { chunks })));

function page(ranks: readonly RankSpans[], title = "a title"): string {
  return ganttPage({ title, source: "made up", ranks });
}

/** What matches in the drawing, without the style and the script. */
function drawn(html: string, pattern: RegExp): readonly string[] {
  const svg = html.slice(html.indexOf("<svg"), html.lastIndexOf("</svg>"));
  return svg.match(pattern) ?? [];
}

function cells(html: string): readonly (readonly string[])[] {
  const table = html.slice(html.indexOf("<tbody>"), html.indexOf("</tbody>"));
  return [...table.matchAll(/<tr>(.*?)<\/tr>/g)].map(([, row]) =>
    [...row!.matchAll(/<td>(.*?)<\/td>/g)].map(([, cell]) => cell!.replaceAll(/<[^>]*>/g, "")),
  );
}

describe("ganttPage", () => {
  test("needs nothing but itself", () => {
    expect(dualPipePage.match(/https?:|<link|src=|@import|url\(/g)).toBeNull();
  });

  test("draws a rectangle for each span, two for a pair", () => {
    const actions = dualPipe.actions.flat();
    const pairs = actions.filter(({ kind }) => kind === "overlapped");
    expect(pairs.length).toBeGreaterThan(4);
    expect(drawn(dualPipePage, /<rect class="[fbiw][01]"/g).length).toBe(actions.length + pairs.length);
    expect(drawn(dualPipePage, /class="rank"/g).length).toBe(4);
  });

  test("puts spans where their times are", () => {
    const plan = plan1F1B({ ranks: 2, microBatches: 1 });
    const html = page(simulatedSpans(plan, simulate(plan, { chunks })));
    const places = drawn(html, /<rect class="[fb]0" x="[^"]*" y="[^"]*" width="[^"]*"/g).map((text) =>
      [...text.matchAll(/(?:x|y|width)="([^"]*)"/g)].map(([, value]) => Number(value)),
    );
    const second = plotWidth / 6;
    const expected = [
      [0, 0, second],
      [4 * second, 0, 2 * second],
      [second, 37, second],
      [2 * second, 37, 2 * second],
    ];
    for (const [index, values] of expected.entries()) {
      for (const [part, value] of values.entries()) expect(places[index]![part]).toBeCloseTo(value, 3);
    }
  });

  test("draws a pair's forward over its backward, each half as high as a row", () => {
    const plan = planDualPipe({ ranks: 2, microBatches: 4 });
    const html = page(simulatedSpans(plan, simulate(plan, { chunks })));
    const pair = drawn(html, /<rect [^>]*height="15"/g).slice(0, 2);
    expect(pair.map((text) => text.match(/class="([^"]*)"/)![1])).toEqual(["f1", "b0"]);
    expect(pair.map((text) => text.match(/ y="([^"]*)"/)![1])).toEqual(["0", "15"]);
  });

  test("has each rank's times in its table, and their mean", () => {
    expect(cells(dualPipePage)).toEqual([
      ...[0, 1, 2, 3].map((rank) => [String(rank), "24 s 92.3%", "2 s 7.7%"]),
      ["mean", "24 s 92.3%", "2 s 7.7%"],
    ]);
  });

  test("shows communication, what of it is hidden, and marks what is exposed", () => {
    const spans: Span[] = [
      { name: "experts", category: "compute", start: 1, end: 1.006 },
      { name: "dispatch", category: "communication", start: 1.004, end: 1.008 },
      { name: "recv", category: "wait", start: 1.008, end: 1.01 },
    ];
    const html = page([{ rank: 0, spans }]);
    expect(cells(html)[0]).toEqual(["0", "6 ms 60.0%", "4 ms", "50.0%", "2 ms 20.0%", "2 ms 20.0%"]);
    expect(drawn(html, /<rect class="(?:other|comm|exposed|wait)"/g).length).toBe(4);
    expect(html).toContain(">experts</text>");
  });

  test("escapes what it is given", () => {
    const spans: Span[] = [{ name: "<script>", category: "compute", start: 0, end: 1 }];
    const html = page([{ rank: 0, spans }], "a & <b>");
    expect(html).toContain("<title>a &amp; &lt;b&gt;</title>");
    expect(html.match(/<script>/g)?.length).toBe(1);
  });

  test("joins spans that are too fine only when there are very many, and says so", () => {
    const many = (count: number): Span[] =>
      Array.from({ length: count }, (_, index) => ({
        ...{ name: "op", category: "compute" as const },
        ...{ start: index, end: index + 0.9 },
      }));
    const few = page([{ rank: 0, spans: many(5000) }]);
    expect(drawn(few, /<rect class="other"/g).length).toBe(5000);
    expect(few).not.toContain("too fine");
    const all = page([{ rank: 0, spans: many(30_000) }]);
    const left = drawn(all, /<rect class="other"/g).length;
    expect(left).toBeLessThan(5000);
    expect(all).toContain(`${30_000 - left} spans are too fine`);
  });

  test("opens without spans", () => {
    expect(page([])).toContain("<svg");
    expect(page([{ rank: 0, spans: [] }])).toContain("rank 0");
  });
});

/** As much of a document as the script uses. */
class FakeElement {
  readonly attributes: Map<string, string>;
  readonly dataset: Record<string, string> = {};
  readonly listeners = new Map<string, (event: unknown) => void>();
  innerHTML = "";
  hidden = true;

  constructor(tag: string) {
    this.attributes = new Map(
      [...tag.matchAll(/([\w-]+)="([^"]*)"/g)].map(([, name, value]) => [name!, value!]),
    );
    for (const [name, value] of this.attributes) {
      if (!name.startsWith("data-")) continue;
      this.dataset[name.slice(5).replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase())] = value;
    }
  }
  getAttribute(name: string): string | undefined {
    return this.attributes.get(name);
  }
  setAttribute(name: string, value: unknown): void {
    this.attributes.set(name, String(value));
  }
  addEventListener(name: string, listener: (event: unknown) => void): void {
    this.listeners.set(name, listener);
  }
  getBoundingClientRect(): { left: number; width: number } {
    return { left: 100, width: 1000 };
  }
}

function runScript(html: string) {
  const tagOf = (id: string) => new FakeElement(html.match(new RegExp(`<[^>]*id="${id}"[^>]*>`))![0]);
  const ids = ["gantt", "plot", "axis", "closer", "wider", "all", "controls"];
  const elements = new Map(ids.map((id) => [id, tagOf(id)]));
  const labels = html
    .slice(html.indexOf('id="labels"'))
    .match(/<text [^>]*>/g)!
    .map((tag) => new FakeElement(tag));
  const document = { getElementById: (id: string) => elements.get(id), querySelectorAll: () => labels };
  runInNewContext(ganttScript, { document });
  return { elements, labels, click: (id: string) => elements.get(id)!.listeners.get("click")!({}) };
}

describe("the page's script", () => {
  const viewBox = (elements: ReadonlyMap<string, FakeElement>) =>
    elements.get("plot")!.getAttribute("viewBox")!.split(" ").map(Number);

  test("shows the middle quarter after two clicks, the labels that fit there, and its times", () => {
    const { elements, labels, click } = runScript(dualPipePage);
    expect(elements.get("controls")!.hidden).toBe(false);
    click("closer");
    click("closer");
    const [from, , shown] = viewBox(elements);
    expect([from! / plotWidth, shown! / plotWidth]).toEqual([3 / 8, 1 / 4]);
    const visible = labels.filter((label) => label.getAttribute("visibility") === "visible");
    expect(visible.length).toBeGreaterThan(4);
    expect(visible.length).toBeLessThan(labels.length / 2);
    const times = [...elements.get("axis")!.innerHTML.matchAll(/>([\d.]+) s</g)].map(([, time]) =>
      Number(time),
    );
    expect(times).toEqual([10, 11, 12, 13, 14, 15, 16]);
    click("all");
    expect(viewBox(elements)).toEqual([0, 0, plotWidth, 4 * 37]);
  });

  test("moves with the pointer, and stops at the ends", () => {
    const { elements, click } = runScript(dualPipePage);
    const send = (name: string, clientX: number) =>
      elements.get("gantt")!.listeners.get(name)!({ clientX, pointerId: 1 });
    Object.assign(elements.get("gantt")!, { setPointerCapture: () => undefined });
    click("closer");
    send("pointerdown", 600);
    send("pointermove", 400);
    expect(viewBox(elements)[0]! / plotWidth).toBeCloseTo(0.25 + 0.2 * 0.5, 9);
    send("pointermove", -5000);
    expect(viewBox(elements)[0]! / plotWidth).toBeCloseTo(0.5, 9);
    send("pointerup", 0);
    send("pointermove", 900);
    expect(viewBox(elements)[0]! / plotWidth).toBeCloseTo(0.5, 9);
  });
});
