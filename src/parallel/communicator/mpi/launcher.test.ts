import { expect, test } from "vitest";
import { launcherOf } from "./launcher.ts";

test("a process started by hand has no launcher, inside a Slurm reservation too", () => {
  expect(launcherOf({})).toBeNull();
  expect(launcherOf({ SLURM_NTASKS: "8", SLURM_JOB_ID: "7" })).toBeNull();
});

test("each launcher is known by its own variables and wants its own library", () => {
  expect(launcherOf({ OMPI_COMM_WORLD_SIZE: "4", OMPI_COMM_WORLD_RANK: "2" })).toMatchObject({
    size: 4,
    rank: 2,
    flavour: "openmpi",
  });
  expect(launcherOf({ PMI_SIZE: "3", PMI_RANK: "0" })).toMatchObject({ size: 3, rank: 0, flavour: "mpich" });
  const step = { SLURM_STEP_NUM_TASKS: "2", SLURM_PROCID: "1" };
  expect(launcherOf(step)).toMatchObject({ size: 2, rank: 1, flavour: null });
  expect(launcherOf({ ...step, PMIX_RANK: "1" })).toMatchObject({ size: 2, rank: 1, flavour: "openmpi" });
});

test("mpirun inside a Slurm step is believed before Slurm, which counts daemons", () => {
  const environment = { SLURM_STEP_NUM_TASKS: "2", SLURM_PROCID: "0" };
  expect(launcherOf({ ...environment, OMPI_COMM_WORLD_SIZE: "16", OMPI_COMM_WORLD_RANK: "9" })).toMatchObject(
    {
      size: 16,
      rank: 9,
    },
  );
  expect(launcherOf({ ...environment, PMI_SIZE: "8", PMI_RANK: "5" })).toMatchObject({ size: 8, rank: 5 });
});

test("a size without a rank, or what is no number, is no launcher", () => {
  expect(launcherOf({ OMPI_COMM_WORLD_SIZE: "4" })).toBeNull();
  expect(launcherOf({ PMI_SIZE: "many", PMI_RANK: "0" })).toBeNull();
});
