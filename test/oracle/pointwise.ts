/**
 * The pointwise kernels in float64, straight from the equations, importing nothing of the product.
 *
 * Gradients are sums over explicit Jacobians, dx_i = sum_j dy_j (dy_j / dx_i): slow, and another way than the
 * closed forms that the product uses. Each function takes a kernel's operands by name and returns its outputs.
 *
 * Source: DeepSeek-V3 report, section 2.1.1, eq. (1)-(3) and (8); section 2.2, eq. (21); RMSNorm and SwiGLU as
 * in the released code.
 */
type Numbers = ArrayLike<number>;
type Operands = Readonly<Record<string, Numbers | null>>;
type Params = Readonly<Record<string, number>>;
type Outputs = Record<string, number[]>;
export type PointwiseOracle = (operands: Operands, params: Params) => Outputs;

const list = (values: Numbers | null | undefined): number[] => Array.from(values ?? []);
const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const total = (values: readonly number[]): number => values.reduce((sum, v) => sum + v, 0);
const rowsOf = (values: Numbers | null | undefined, rows: number): number[][] => {
  const all = list(values);
  const width = all.length / rows;
  return range(rows).map((r) => all.slice(r * width, (r + 1) * width));
};

/** 1 / sqrt(mean(s^2) + eps) */
function inverseRms(s: readonly number[], eps: number): number {
  return 1 / Math.sqrt(total(s.map((v) => v * v)) / s.length + eps);
}

/** With r given: y_j = s_j r(s) g_j, dr/ds_i = -r^3 s_i / D, so dy_j/ds_i = g_j (r [i = j] - s_j r^3 s_i / D). */
function normJacobianProduct(dy: readonly number[], s: readonly number[], g: readonly number[], r: number) {
  return s.map((si, i) =>
    total(s.map((sj, j) => dy[j]! * g[j]! * ((i === j ? r : 0) - (sj * r ** 3 * si) / s.length))),
  );
}

/** dg_j = sum over tokens of dy_j s_j r, added to what is there. */
function gainGradient(
  before: readonly number[],
  dy: number[][],
  s: number[][],
  r: readonly number[],
): number[] {
  return before.map((value, j) => value + total(dy.map((row, t) => row[j]! * s[t]![j]! * r[t]!)));
}

/** Pair j as a complex number times exp(i angle j): the 2 x 2 matrix of the angle, or its transpose. */
function turned(
  x: readonly number[],
  cos: readonly number[],
  sin: readonly number[],
  direction: number,
): number[] {
  return x.map((value, i) => {
    const [c, s] = [cos[i >> 1]!, sin[i >> 1]! * direction];
    return i % 2 === 0 ? value * c - x[i + 1]! * s : x[i - 1]! * s + value * c;
  });
}

/** The table's rows for each token. */
function anglesOf({ cos, sin, positions }: Operands, half: number): { cos: number[]; sin: number[] }[] {
  return list(positions).map((p) => ({
    cos: list(cos).slice(p * half, (p + 1) * half),
    sin: list(sin).slice(p * half, (p + 1) * half),
  }));
}

const addRmsNorm: PointwiseOracle = ({ x, delta, gain, sum }, { T, eps }) => {
  const added = delta == null ? list(x) : list(x).map((v, i) => v + delta[i]!);
  const s = rowsOf(added, T!);
  const rstd = s.map((row) => inverseRms(row, eps!));
  const y = s.flatMap((row, t) => row.map((v, i) => v * rstd[t]! * gain![i]!));
  return sum === null ? { y, rstd } : { sum: added, y, rstd };
};

const addRmsNormBackward: PointwiseOracle = ({ dy, dsum, s, gain, rstd, dgain }, { T }) => {
  const [dyRows, sRows] = [rowsOf(dy, T!), rowsOf(s, T!)];
  const dx = sRows.flatMap((row, t) => normJacobianProduct(dyRows[t]!, row, list(gain), rstd![t]!));
  return {
    dx: dsum == null ? dx : dx.map((v, i) => v + dsum[i]!),
    dgain: gainGradient(list(dgain), dyRows, sRows, list(rstd)),
  };
};

const swiglu: PointwiseOracle = ({ x }, { R, F }) => ({
  y: rowsOf(x, R!).flatMap((row) =>
    range(F!).map((i) => row[i]! * (1 / (1 + Math.exp(-row[i]!))) * row[F! + i]!),
  ),
});

const swigluBackward: PointwiseOracle = ({ dy, x }, { R, F }) => {
  const dyRows = rowsOf(dy, R!);
  return {
    dx: rowsOf(x, R!).flatMap((row, r) => {
      const dyRow = dyRows[r]!;
      // d(g s(g))/dg by the quotient rule on g / (1 + e^-g), with e^-g scaled so that nothing overflows.
      const slope = (g: number): number => {
        const e = Math.exp(-Math.abs(g));
        return g >= 0 ? (1 + e + g * e) / (1 + e) ** 2 : (e * (1 + e) + g * e) / (1 + e) ** 2;
      };
      const gates = range(F!).map((i) => dyRow[i]! * row[F! + i]! * slope(row[i]!));
      const ups = range(F!).map((i) => (dyRow[i]! * row[i]!) / (1 + Math.exp(-row[i]!)));
      return [...gates, ...ups];
    }),
  };
};

const rope: PointwiseOracle = (operands, { T, heads, stride, offset, R, direction }) => {
  const angles = anglesOf(operands, R! / 2);
  return {
    y: rowsOf(operands["x"], T! * heads!).flatMap((head, i) => {
      const { cos, sin } = angles[Math.floor(i / heads!)]!;
      const middle = turned(head.slice(offset!, offset! + R!), cos, sin, direction!);
      return [...head.slice(0, offset!), ...middle, ...head.slice(offset! + R!, stride!)];
    }),
  };
};

const latentKv: PointwiseOracle = (operands, { T, C, R, eps }) => {
  const rows = rowsOf(operands["kvA"], T!);
  const angles = anglesOf(operands, R! / 2);
  const rstd = rows.map((row) => inverseRms(row.slice(0, C!), eps!));
  return {
    latent: rows.flatMap((row, t) => range(C!).map((i) => row[i]! * rstd[t]! * operands["gain"]![i]!)),
    kRope: rows.flatMap((row, t) => turned(row.slice(C!), angles[t]!.cos, angles[t]!.sin, 1)),
    rstd,
  };
};

const latentKvBackward: PointwiseOracle = (operands, { T, C, R }) => {
  const { gain, rstd, dgain } = operands;
  const latents = rowsOf(operands["kvA"], T!).map((row) => row.slice(0, C!));
  const dLatent = rowsOf(operands["dLatent"], T!);
  const dkRope = rowsOf(operands["dkRope"], T!);
  const angles = anglesOf(operands, R! / 2);
  return {
    dkvA: latents.flatMap((row, t) => [
      ...normJacobianProduct(dLatent[t]!, row, list(gain), rstd![t]!),
      ...turned(dkRope[t]!, angles[t]!.cos, angles[t]!.sin, -1),
    ]),
    dgain: gainGradient(list(dgain), dLatent, latents, list(rstd)),
  };
};

/** The nearest bf16, ties to even: eight significant bits of the f32 that is given. */
function nearestBf16(value: number): number {
  if (value === 0) return value;
  const unit = 2 ** (Math.floor(Math.log2(Math.abs(value))) - 7);
  const steps = value / unit;
  const [below, above] = [Math.floor(steps), Math.ceil(steps)];
  if (steps - below !== above - steps) return Math.round(steps) * unit;
  return (below % 2 === 0 ? below : above) * unit;
}

const embedding: PointwiseOracle = ({ ids, table }, { V, round }) => {
  const rows = rowsOf(table, V!);
  return { y: list(ids).flatMap((id) => (round === 1 ? rows[id]!.map(nearestBf16) : rows[id]!)) };
};

const embeddingGrad: PointwiseOracle = ({ ids, dy, dtable }, { T, D, V }) => {
  const dyRows = rowsOf(dy, T!);
  return {
    dtable: range(V! * D!).map((i) => {
      const [row, column] = [Math.floor(i / D!), i % D!];
      return dtable![i]! + total(dyRows.map((g, t) => (ids![t] === row ? g[column]! : 0)));
    }),
  };
};

const mtpInput: PointwiseOracle = ({ e, h, eGain, hGain }, { T, D, eps }) => {
  const [eRows, hRows] = [rowsOf(e, T!), rowsOf(h, T!)];
  const rstd = range(T!).map((t) => [inverseRms(eRows[t]!, eps!), inverseRms(hRows[t]!, eps!)] as const);
  return {
    z: rstd.flatMap(([re, rh], t) => [
      ...range(D!).map((i) => eRows[t]![i]! * re * eGain![i]!),
      ...range(D!).map((i) => hRows[t]![i]! * rh * hGain![i]!),
    ]),
    rstd: rstd.flat(),
  };
};

const mtpInputBackward: PointwiseOracle = (operands, { T, D }) => {
  const { eGain, hGain, rstd, deGain, dhGain } = operands;
  const dz = rowsOf(operands["dz"], T!);
  const [dzE, dzH] = [dz.map((row) => row.slice(0, D!)), dz.map((row) => row.slice(D!))];
  const [e, h] = [rowsOf(operands["e"], T!), rowsOf(operands["h"], T!)];
  const [re, rh] = [range(T!).map((t) => rstd![2 * t]!), range(T!).map((t) => rstd![2 * t + 1]!)];
  return {
    de: e.flatMap((row, t) => normJacobianProduct(dzE[t]!, row, list(eGain), re[t]!)),
    dh: h.flatMap((row, t) => normJacobianProduct(dzH[t]!, row, list(hGain), rh[t]!)),
    deGain: gainGradient(list(deGain), dzE, e, re),
    dhGain: gainGradient(list(dhGain), dzH, h, rh),
  };
};

/** By kernel name. */
export const pointwiseOracles: Readonly<Record<string, PointwiseOracle>> = {
  fill: (_, { n, value }) => ({ y: range(n!).map(() => value!) }),
  copy: ({ x }) => ({ y: list(x) }),
  copyRow: ({ x, table }, { n, row }) => ({
    table: rowsOf(table, table!.length / n!).flatMap((own, r) => (r === row ? list(x) : own)),
  }),
  addCounts: ({ x, y }) => ({ y: list(y).map((v, i) => v + x![i]!) }),
  cast: ({ x }) => ({ y: list(x) }),
  add: ({ a, b }) => ({ y: list(a).map((v, i) => v + b![i]!) }),
  axpy: ({ x, y }, { alpha }) => ({ y: list(y).map((v, i) => v + alpha! * x![i]!) }),
  scale: ({ y }, { alpha }) => ({ y: list(y).map((v) => alpha! * v) }),
  addRmsNorm,
  addRmsNormBackward,
  swiglu,
  swigluBackward,
  rope,
  latentKv,
  latentKvBackward,
  embedding,
  embeddingGrad,
  mtpInput,
  mtpInputBackward,
};
