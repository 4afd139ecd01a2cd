/**
 * Best-fit packing: documents into rows of a fixed length, so that few are cut and little is padded.
 *
 * A document longer than a row is cut into pieces; pieces are placed longest first, each into the row with the
 * least room that still takes it.
 *
 * Source: DeepSeek-V3 report, section 4.1, after Ding et al. 2024 (fewer truncations improve language modelling).
 */

/** A stretch of a document's tokens. */
export interface Piece {
  readonly document: number;
  readonly start: number;
  readonly length: number;
}

/** @returns for each row its pieces, in the order in which they stand there */
export function planPacking(
  documentLengths: readonly number[],
  rowWidth: number,
): readonly (readonly Piece[])[] {
  const pieces = documentLengths.flatMap((length, document) => cut(document, length, rowWidth));
  // Longest first; equal ones in the order of the corpus, so that the plan depends on nothing else.
  pieces.sort((a, b) => b.length - a.length || a.document - b.document || a.start - b.start);
  const rows: Piece[][] = [];
  /** Rows by the room they have left. */
  const byRoom: number[][] = Array.from({ length: rowWidth + 1 }, () => []);
  for (const piece of pieces) {
    let room = piece.length;
    while (room <= rowWidth && byRoom[room]!.length === 0) room++;
    const row = room <= rowWidth ? byRoom[room]!.pop()! : rows.push([]) - 1;
    const left = Math.min(room, rowWidth) - piece.length;
    rows[row]!.push(piece);
    if (left > 0) byRoom[left]!.push(row);
  }
  return rows;
}

function cut(document: number, length: number, rowWidth: number): readonly Piece[] {
  const count = Math.ceil(length / rowWidth);
  return Array.from({ length: count }, (_, i) => ({
    document,
    start: i * rowWidth,
    length: Math.min(rowWidth, length - i * rowWidth),
  }));
}

/** Writes the planned rows; -1 pads. */
export function packRows(
  documents: readonly Int32Array[],
  plan: readonly (readonly Piece[])[],
  rowWidth: number,
): Int32Array {
  const rows = new Int32Array(plan.length * rowWidth).fill(-1);
  for (const [r, pieces] of plan.entries()) {
    let at = r * rowWidth;
    for (const { document, start, length } of pieces) {
      rows.set(documents[document]!.subarray(start, start + length), at);
      at += length;
    }
  }
  return rows;
}
