/** Which documents are trained on and which are held out. */
import { type Document, readDocuments } from "./documents.ts";

/** True for documents that are held out. */
export function isHeldOut(document: number, validationEvery: number): boolean {
  return validationEvery > 0 && document % validationEvery === validationEvery - 1;
}

/** The texts of both splits. A corpus of one document gives its last twentieth, from a line's beginning. */
export async function splitDocuments(
  files: readonly string[],
  validationEvery: number,
  signal?: AbortSignal,
): Promise<{ readonly train: readonly Document[]; readonly validation: readonly Document[] }> {
  const train: Document[] = [];
  const validation: Document[] = [];
  let number = 0;
  for await (const document of readDocuments(files)) {
    signal?.throwIfAborted();
    (isHeldOut(number++, validationEvery) ? validation : train).push(document);
  }
  if (validationEvery > 0 && validation.length === 0) {
    // Fewer documents than one held-out would need: the end of the last one stands in.
    const last = train.pop()!;
    const at = last.text.indexOf("\n", Math.floor(last.text.length * 0.95)) + 1;
    const cut =
      at > 0 && at < last.text.length
        ? at
        : betweenCharacters(last.text, Math.floor(last.text.length * 0.95));
    train.push({ id: last.id, text: last.text.slice(0, cut) });
    validation.push({ id: `${last.id} (end)`, text: last.text.slice(cut) });
  }
  return { train, validation };
}

/** `index`, or one less where it would part the two halves of a character. */
function betweenCharacters(text: string, index: number): number {
  return (text.codePointAt(index - 1) ?? 0) > 0xffff ? index - 1 : index;
}
