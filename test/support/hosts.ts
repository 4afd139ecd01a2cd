/** Several hosts on this machine (scripts/hosts.sh) for tests of what happens between machines. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { mpiFlavours } from "./mpirun.ts";

const script = join(import.meta.dirname, "..", "..", "scripts", "hosts.sh");

/** Of this process alone: other tests may have hosts of their own at the same time. */
const name = `minke-test-${process.pid}`;

export const HOSTS: readonly string[] = ["h0", "h1", "h2", "h3"];

/** What starts mpirun on the first host. */
export const onFirstHost: readonly string[] = ["env", `MINKE_HOSTS=${name}`, script, "on", "h0"];

/** mpirun's flags for these hosts, as docs/cluster.md explains them. */
export const hostFlags: readonly string[] = [
  ...["-H", HOSTS.join(","), "--map-by", "node"],
  ...["--mca", "plm_rsh_agent", `${script} rsh`],
  ...["--mca", "btl_tcp_if_include", "10.77.0.0/24", "--mca", "oob_tcp_if_include", "10.77.0.0/24"],
  ...["--mca", "oob_tcp_keepalive_time", "2"],
  ...["--mca", "oob_tcp_keepalive_intvl", "1"],
  ...["--mca", "oob_tcp_keepalive_probes", "3"],
];

/** False where namespaces are forbidden or ip is missing; with both there, hosts must work. */
export const canMakeHosts: boolean =
  mpiFlavours.includes("openmpi") &&
  spawnSync("unshare", ["--net", "--uts", "--mount", "ip", "link", "set", "lo", "up"]).status === 0;

/** Runs scripts/hosts.sh; throws if it fails. */
export function hosts(...args: readonly string[]): string {
  const env = { ...process.env, MINKE_HOSTS: name };
  const { status, stdout, stderr } = spawnSync(script, args, { env, encoding: "utf8" });
  if (status !== 0) throw new Error(`hosts.sh ${args.join(" ")}: ${stderr}`);
  return stdout;
}

export function processesOn(host: string): readonly number[] {
  return hosts("pids", host).split("\n").filter(Boolean).map(Number);
}
