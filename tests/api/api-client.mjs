// @neondatabase/api-client (axios), as a tool of somebody else uses it.
import { createApiClient } from "@neondatabase/api-client";
import { done, expect, open, step, url } from "./client.mjs";

const api = createApiClient({ apiKey: "any", baseURL: url });
let project, main, dev, endpoint;

await step("create a project", async () => {
  const { data } = await api.createProject({ project: { name: "axios", branch: { name: "main", role_name: "app",
    database_name: "app" }, default_endpoint_settings: { suspend_timeout_seconds: 3600 } } });
  project = data.project.id;
  main = data.branch.id;
  expect(data.operations.length >= 2 && data.roles[0].name === "app", data);
});
await step("list projects page by page", async () => {
  const seen = [];
  for (let cursor; ;) {
    const { data } = await api.listProjects({ limit: 1, cursor });
    if (data.projects.length === 0) break;
    seen.push(data.projects[0].id);
    cursor = data.pagination.cursor;
  }
  expect(seen.includes(project) && new Set(seen).size === seen.length, seen);
});
await step("create a branch and wait for its operations", async () => {
  const { data } = await api.createProjectBranch(project, { branch: { name: "dev", parent_id: main },
    endpoints: [{ type: "read_write" }] });
  dev = data.branch.id;
  endpoint = data.endpoints[0].id;
  for (const { id } of data.operations) {
    for (let status; status !== "finished";) {
      status = (await api.getProjectOperation(project, id)).data.operation.status;
      expect(["running", "finished"].includes(status), status);
    }
  }
});
await step("connection URI", async () => {
  await open((await api.getConnectionUri({ projectId: project, branch_id: dev, database_name: "app", role_name: "app" })).data.uri);
});
await step("count, get, rename", async () => {
  expect((await api.countProjectBranches({ projectId: project })).data.count === 2, "count");
  await api.updateProjectBranch(project, dev, { branch: { name: "dev-2" } });
  expect((await api.getProjectBranch(project, dev)).data.branch.name === "dev-2", "name");
});
await step("roles and databases", async () => {
  const made = await api.createProjectBranchRole(project, dev, { role: { name: "web" } });
  expect(made.data.role.password.length >= 16, "password");
  await api.createProjectBranchDatabase(project, dev, { database: { name: "store", owner_name: "web" } });
  expect((await api.listProjectBranchDatabases(project, dev)).data.databases.length === 2, "databases");
  expect((await api.getProjectBranchRolePassword(project, dev, "web")).data.password === made.data.role.password, "same");
  await api.resetProjectBranchRolePassword(project, dev, "web");
  await api.deleteProjectBranchDatabase(project, dev, "store");
});
await step("suspend and start", async () => {
  expect((await api.suspendProjectEndpoint(project, endpoint)).status === 200, "suspend");
  expect((await api.startProjectEndpoint(project, endpoint)).status === 200, "start");
  expect((await api.listProjectEndpoints(project)).data.endpoints.length === 2, "endpoints");
  await api.getProjectEndpoint(project, endpoint);
  await api.updateProjectEndpoint(project, endpoint, { endpoint: { suspend_timeout_seconds: 600 } });
});
await step("schema and its difference", async () => {
  expect((await api.getProjectBranchSchema({ projectId: project, branchId: dev, db_name: "app" })).data.sql
    .includes("PostgreSQL database dump"), "sql");
  expect(Array.isArray((await api.getProjectBranchSchema({ projectId: project, branchId: dev, db_name: "app", format: "json" }))
    .data.json.tables), "json");
  const { data } = await api.getProjectBranchSchemaComparison({ projectId: project, branchId: dev, db_name: "app" });
  expect(data.diff === "", data);
});
await step("errors are told apart", async () => {
  for (const [call, status] of [[() => api.getProject("no-such-1"), 404],
    [() => api.deleteProjectBranch({ projectId: project, branchId: main }), 422],
    [() => api.createProjectBranch(project, { branch: { name: "dev-2" } }), 409]]) {
    const answer = await call().then((a) => a, (error) => error.response);
    expect(answer.status === status && answer.data.message && answer.data.code, answer.data);
  }
});
await step("whoami and regions", async () => {
  expect((await api.getCurrentUserInfo()).data.login, "login");
  await api.getAuthDetails();
  const { data } = await api.getCurrentUserOrganizations();
  expect((await api.getOrganization(data.organizations[0].id)).data.id === data.organizations[0].id, "organization");
  expect((await api.getActiveRegions()).data.regions.length === 1, "regions");
});
await step("delete", async () => {
  expect((await api.deleteProjectBranch({ projectId: project, branchId: dev })).data.branch.id === dev, "branch");
  expect((await api.deleteProject(project)).data.project.id === project, "project");
});
done();
