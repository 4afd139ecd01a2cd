/** The model of make_fp8_written.py, as Minke writes it: `node writtenCheckpoint.ts FOLDER` makes FOLDER/f32 and FOLDER/fp8. */
import { writeFp8Checkpoint } from "../../support/fp8Checkpoint.ts";

await writeFp8Checkpoint(process.argv[2]!);
