/** Text from ids that arrive one by one; holds back the bytes of a character that is not complete. */
export class StreamDecoder {
  // ignoreBOM: a text may begin with U+FEFF, which a TextDecoder would swallow.
  private readonly decoder: InstanceType<typeof TextDecoder> = new TextDecoder("utf-8", { ignoreBOM: true });
  private readonly bytesOf: (id: number) => Uint8Array;

  constructor(bytesOf: (id: number) => Uint8Array) {
    this.bytesOf = bytesOf;
  }

  /** The text that is certain now; "" while a character is incomplete. */
  push(id: number): string {
    return this.decoder.decode(this.bytesOf(id), { stream: true });
  }

  /** What remains: "" or one U+FFFD for an unfinished character. The decoder is then as new. */
  end(): string {
    return this.decoder.decode();
  }
}
