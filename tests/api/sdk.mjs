// @neon/sdk (fetch): it polls operations and turns pages by itself.
import { createNeonClient } from "@neon/sdk";
import { done, expect, open, step, url } from "./client.mjs";

const neon = createNeonClient({ apiKey: "any", baseUrl: url, throwOnError: true, wait: { pollIntervalMs: 100 } });
let projectId, branchId;

await step("create a project and connect", async () => {
  const made = await neon.projects.createAndConnect({ name: "fetch", pooled: false });
  projectId = made.project.id;
  await open(made.connectionString);
});
await step("a branch with a connection", async () => {
  const made = await neon.branches.createAndConnect({ projectId, name: "preview/pr-7", pooled: false });
  branchId = made.branch.id;
  await open(made.connectionString);
});
await step("list everything", async () => {
  expect((await neon.projects.list().all()).some((p) => p.id === projectId), "projects");
  expect((await neon.branches.list({ projectId }).all()).length === 2, "branches");
  expect((await neon.branches.getDefault({ projectId })).default, "default");
});
await step("compare schemas", async () => {
  await neon.branches.compareSchema({ projectId, branchId, databaseName: "app" });
});
await step("reset from the parent", async () => {
  await neon.branches.resetFromParent({ projectId, branchId });
});
await step("delete", async () => {
  const { operations } = await neon.branches.delete({ projectId, branchId }, { waitForReadiness: true }) ?? {};
  expect(operations === undefined || Array.isArray(operations), "operations");
  await neon.projects.delete({ projectId });
});
done();
