import { describe, expect, test } from "vitest";
import { countParameters, trainingFlopsPerToken } from "./counts.ts";
import { nano, v3671b } from "./presets.ts";

describe("countParameters", () => {
  test("gives DeepSeek-V3's published and derived counts to the last parameter", () => {
    const counts = countParameters(v3671b());
    expect(counts.embedding).toBe(926_679_040);
    expect(counts.mlaPerLayer).toBe(187_107_328);
    expect(counts.denseMlp).toBe(396_361_728);
    expect(counts.expert).toBe(44_040_192);
    expect(counts.router).toBe(1_835_264);
    expect(counts.denseLayer).toBe(583_483_392);
    expect(counts.moeLayer).toBe(11_507_286_272);
    expect(counts.main).toBe(671_026_419_200);
    expect(counts.active).toEqual({
      all: 37_552_297_472,
      withoutEmbedding: 36_625_618_432,
      withoutBoth: 35_698_939_392,
    });
    expect(counts.mtpModule).toBe(11_610_068_224);
    expect(counts.stored).toBe(684_489_845_504);
  });

  test("puts nano near 13.6M parameters, as the peers were measured", () => {
    const { main, mtpModule } = countParameters(nano());
    expect((main + mtpModule) / 1e6).toBeCloseTo(13.6, 1);
  });
});

describe("trainingFlopsPerToken", () => {
  test("gives 250 GFLOP per token for V3 at 4096 tokens, MTP and embedding left out as published", () => {
    const { main } = trainingFlopsPerToken(v3671b(), 4096);
    expect(main / 1e9).toBeCloseTo(250.5, 1);
  });

  test("gives nano 40.9 MFLOP per token with its MTP module", () => {
    expect(trainingFlopsPerToken(nano(), 256).total / 1e6).toBeCloseTo(40.9, 0);
  });
});
