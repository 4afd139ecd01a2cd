import { describe, expect, test } from "vitest";
import { exampleEvents } from "../../../test/support/exampleEvents.ts";
import { collectHistory } from "../log/history.ts";
import { reportData } from "./reportData.ts";
import { reportMarkdown } from "./reportMarkdown.ts";

describe("reportMarkdown", () => {
  test("of one event of every kind", async () => {
    const text = reportMarkdown(reportData(await collectHistory(Object.values(exampleEvents))));
    expect(text).toMatchInlineSnapshot(`
      "# example

      open · begun 2026-11-21T12:00:00.000Z · minke 0.1.0

      | figure | value |
      |---|---|
      | validation bits per byte | 2.943 |
      | validation loss | 5.100 |
      | next-next token | 5.0% |
      | parameters | 1M |
      | steps | 5 of 10 |
      | tokens seen | 320 |
      | speed | 1,000 tok/s |
      | share of peak | 50.0% |

      ## Loss

      Training loss from 5.000 to 5.000: \`▁\`

      | step | validation loss | bits per byte | next-next token |
      |---|---|---|---|
      | 5 | 5.100 | 2.943 | 5.0% |

      ## Against simple models

      |  | bits per byte |
      |---|---|
      | order-2 byte model | 2.500 |
      | **this model** | 2.943 |

      ## Expert load

      Worst windows of 100 steps after the first fifth, as multiples of the layer's mean. Aim: most loaded at most 1.15, least loaded at least 0.8.

      | layer | most loaded expert | least loaded expert |
      |---|---|---|
      | layer 1 | 1.063 (steps 5–5) | 0.938 (steps 5–5) |
      | layer 2 (MTP) | 1.250 (steps 5–5) | 0.750 (steps 5–5) |

      ## Samples

      Step 5:

      > The whale
      >
      > sings

      ## What happened

      - Warning: the machine is busy (speeds will vary)
      - step 6: Skipped: non-finite gradient in model.layers.1.mlp.gate.weight
      - step 5: Damaged checkpoint checkpoints/step-5: model.safetensors has another hash
      - step 5: Interrupted by SIGINT
      - step 4: Resumed from checkpoints/step-4
      - step 5: Failed: model.norm.weight is not finite
      - step 10: Completed after 2.0s

      ## Time

      | phase | time |
      |---|---|
      | train | 1.2s |

      ## Model

      |  |  |
      |---|---|
      | parameters | \`1,000,000\` |
      | used by one token | \`400,000\` |
      | training work per token | \`2.4 MFLOP\` |
      | layers | \`2\` |
      | MTP modules | \`1\` |
      | routed experts per layer | \`4\` |

      ## Data

      |  |  |
      |---|---|
      | source | \`text.txt\` |
      | training split | \`19 documents, 37.1 KiB, 9,500 tokens\` |
      | validation split | \`1 documents, 1.95 KiB, 500 tokens\` |
      | vocabulary | \`512\` |
      | bytes per token | \`2.50\` |

      ## Memory

      |  |  |
      |---|---|
      | tensors, expected | \`28.6 MiB\` |
      | process, expected | \`85.8 MiB\` |
      | tensors, measured at most | \`19.1 MiB\` |
      | process, measured at most | \`76.3 MiB\` |
      | expected for weights | \`7.63 MiB\` |
      | expected for activations | \`11.4 MiB\` |

      ## Machine

      |  |  |
      |---|---|
      | minke | \`0.1.0\` |
      | command | \`minke train --preset unit\` |
      | processor | \`a processor\` |
      | threads | \`2 of 2\` |
      | memory | \`8 GiB\` |
      | system | \`linux x64, Node v24.21.0\` |
      | backend | \`native, avx512-bf16\` |
      | precision | \`bf16\` |
      | peak | \`420 GFLOP/s\` |

      ## Settings

      |  |  |
      |---|---|
      | seed | \`1\` |
      | model.nRoutedExperts | \`4\` |
      "
    `);
  });
});
