import { describe, expect, test } from "vitest";
import { EventChannel, type EventSink, fanOut } from "./eventSink.ts";
import { type RunEvent, stampEvent } from "./events.ts";

const event = (name: string): RunEvent => stampEvent({ type: "run.phase", name, seconds: 0 });

class Recorder implements EventSink {
  readonly seen: RunEvent[] = [];
  emit(one: RunEvent): void {
    this.seen.push(one);
  }
}

const broken: EventSink = {
  emit: () => {
    throw new Error("the pipe is closed");
  },
  flush: () => Promise.reject(new Error("the disk is full")),
};

describe("fanOut", () => {
  test("hands every event to every sink in order", () => {
    const [a, b] = [new Recorder(), new Recorder()];
    const sink = fanOut([a, b]);
    const events = [event("1"), event("2")];
    for (const one of events) sink.emit(one);
    expect(a.seen).toEqual(events);
    expect(b.seen).toEqual(events);
  });

  test("a sink that throws costs the others nothing, and is heard", () => {
    const last = new Recorder();
    expect(() => fanOut([broken, last]).emit(event("1"))).toThrow("the pipe is closed");
    expect(last.seen).toHaveLength(1);
  });

  test("two failures arrive together", () => {
    expect(() => fanOut([broken, broken]).emit(event("1"))).toThrow(AggregateError);
  });

  test("flush waits for all and reports the one that failed", async () => {
    let isFlushed = false;
    const slow: EventSink = {
      emit: () => {},
      flush: async () => {
        await new Promise((resolve) => setTimeout(resolve, 5));
        isFlushed = true;
      },
    };
    await expect(fanOut([broken, slow, new Recorder()]).flush()).rejects.toThrow("the disk is full");
    expect(isFlushed).toBe(true);
    await fanOut([slow]).close();
  });
});

describe("EventChannel", () => {
  test("gives what was emitted before and during the loop, then ends", async () => {
    const channel = new EventChannel();
    channel.emit(event("1"));
    const seen: string[] = [];
    setTimeout(() => {
      channel.emit(event("2"));
      channel.emit(event("3"));
      void channel.close();
    }, 5);
    for await (const one of channel) seen.push(one.type === "run.phase" ? one.name : "?");
    expect(seen).toEqual(["1", "2", "3"]);
  });

  test("a failure reaches the reader after the events before it", async () => {
    const channel = new EventChannel();
    channel.emit(event("1"));
    channel.fail(new Error("NaN in a weight"));
    const seen: RunEvent[] = [];
    const loop = async () => {
      for await (const one of channel) seen.push(one);
    };
    await expect(loop()).rejects.toThrow("NaN in a weight");
    expect(seen).toHaveLength(1);
  });

  test("keeps only the newest events for a reader who comes late, and says so", async () => {
    const channel = new EventChannel();
    for (let i = 0; i < 1000; i++) channel.emit(event(String(i)));
    void channel.close();
    const seen: RunEvent[] = [];
    for await (const one of channel) seen.push(one);
    expect(seen).toHaveLength(257);
    expect(seen[0]).toMatchObject({ type: "run.warning" });
    expect(seen[0]).toHaveProperty(
      "what",
      "744 events came before anybody read them and are not in this loop",
    );
    expect(seen[1]).toMatchObject({ name: "744" });
  });

  test("loses nothing once somebody reads, however slowly", async () => {
    const channel = new EventChannel();
    channel.emit(event("0"));
    const seen: string[] = [];
    for await (const one of channel) {
      if (one.type === "run.phase") seen.push(one.name);
      if (seen.length > 1) continue;
      for (let i = 1; i <= 1000; i++) channel.emit(event(String(i)));
      void channel.close();
    }
    expect(seen).toEqual(Array.from({ length: 1001 }, (_, index) => String(index)));
  });

  test("a reader that leaves early frees what waits, and later events are dropped", async () => {
    const channel = new EventChannel();
    for (let i = 0; i < 3; i++) channel.emit(event(String(i)));
    for await (const one of channel) {
      expect(one.type).toBe("run.phase");
      break;
    }
    channel.emit(event("late"));
    const rest: RunEvent[] = [];
    for await (const one of channel) rest.push(one);
    expect(rest).toEqual([]);
  });
});
