// An image file is sent from the page, interrupted by a reload, and goes on.
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "@playwright/test";
import { choose, logIn } from "./cluster";

const dir = mkdtempSync(join(tmpdir(), "drystone-images-"));
const file = join(dir, "uploaded.img");

test.beforeAll(() => writeFileSync(file, randomBytes(20 * 2 ** 20)));
test.afterAll(() => rmSync(dir, { recursive: true }));

test("an upload goes on after a reload", async ({ page }) => {
  await choose(page, "en", "light");
  await logIn(page);
  const open = async () => {
    await page.evaluate(() => {
      location.hash = "#/c/here/storage?tab=images";
    });
    await page.getByRole("button", { name: "Import an image" }).first().click();
    const dialog = page.getByRole("dialog");
    await dialog.locator("input[type=file]").setInputFiles(file);
    return dialog;
  };

  // The first pieces arrive, then the line is dead.
  const sent: string[] = [];
  await page.route("**/api/v1/uploads/*", async (route) => {
    if (route.request().method() !== "PATCH") return route.continue();
    if (sent.length > 0) return route.abort();
    sent.push((await route.request().headerValue("upload-offset")) ?? "");
    return route.continue();
  });
  let dialog = await open();
  await dialog.getByRole("button", { name: "Import" }).click();
  await expect(dialog.getByRole("status")).toContainText("Uploading 40");
  expect(sent).toEqual(["0"]);

  // The page is loaded anew, and the same file chosen again.
  await page.unroute("**/api/v1/uploads/*");
  await page.reload();
  await expect(page.locator("[data-link=open]")).toBeVisible();
  const offsets: string[] = [];
  page.on("request", (r) => {
    if (r.method() === "PATCH")
      offsets.push(r.headers()["upload-offset"] ?? "");
  });
  dialog = await open();
  await expect(dialog.getByRole("status")).toContainText("were sent before");
  await dialog.getByRole("button", { name: "Go on" }).click();
  await expect(dialog).toHaveCount(0, { timeout: 60_000 });
  expect(offsets[0]).toBe(String(8 * 2 ** 20));
  await expect(page.getByRole("link", { name: "uploaded" })).toBeVisible();

  await page.getByRole("button", { name: "Delete uploaded" }).click();
  await page.getByRole("dialog").locator("input").fill("uploaded");
  await page
    .getByRole("dialog")
    .getByRole("button", { name: "Delete" })
    .click();
  await expect(page.getByRole("link", { name: "uploaded" })).toHaveCount(0);
});
