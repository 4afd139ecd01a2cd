/** Rows of text in columns: the first to the left, the others to the right. */
export function table(rows: readonly (readonly string[])[], indent = "  "): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    }
  }
  return rows.map((row) => {
    const cells = row.map((cell, column) => {
      const width = widths[column]!;
      return column === 0 ? cell.padEnd(width) : cell.padStart(width);
    });
    return `${indent}${cells.join("  ")}`.trimEnd();
  });
}
