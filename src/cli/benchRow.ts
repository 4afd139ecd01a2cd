/** What every bench is told, and what it prints. */
export interface BenchFlags {
  readonly preset: string;
  readonly precision: "f32" | "bf16";
  readonly threads?: number;
  readonly json?: boolean;
}

/** One measured row; `share` is of the peak measured in the same run. */
export interface BenchRow {
  readonly name: string;
  readonly [figure: string]: string | number;
}
