/** The plain twin of a device that replays: every recording is built anew, op by op. */
import { QueueDevice } from "../../src/tensor/index.ts";

export class PlainDevice extends QueueDevice {
  override record(build: () => void): null {
    build();
    return null;
  }
}
