// A person's way through the page, on a real cluster: log in, see what lives,
// make a machine, run it, stop it, delete it.
import { readFileSync } from 'node:fs';
import { expect, test } from '@playwright/test';
import { choose, cluster, logIn } from './cluster';

const guest = (file: string) => `${process.env.DRYSTONE_GUEST ?? '../../bin/guest'}/${file}`;

test.beforeEach(async ({ page }) => {
  await choose(page, 'en', 'light');
});

test('a wrong password is refused with one sentence', async ({ page }) => {
  await page.goto(cluster.url());
  await page.locator('input[name=user]').fill(cluster.user());
  await page.locator('input[name=password]').fill('not the password');
  await page.locator('button[type=submit]').click();
  await expect(page.getByRole('alert')).toBeVisible();
  await expect(page.locator('[data-node]')).toHaveCount(0);
});

test('three nodes are up, and their numbers move', async ({ page }) => {
  await logIn(page);
  await expect(page.locator('[data-node]')).toHaveCount(3);
  for (const node of await page.locator('[data-node]').all()) {
    await expect(node).toContainText('Up');
  }
  // All of a node's numbers: one alone may stand still, as the CPU's of a busy machine.
  const live = page.locator('[data-node]').first().locator('[data-live]');
  const seen = new Set<string>();
  await expect
    .poll(async () => seen.add((await live.allTextContents()).join(' ')).size, { timeout: 30_000 })
    .toBeGreaterThan(2);
  await expect(page.locator('canvas').first()).toBeVisible();
});

test('a machine is made, runs, is stopped and deleted', async ({ page }) => {
  readFileSync(guest('vmlinuz')); // built by tests/guest/build.sh
  await logIn(page);
  await page.evaluate(() => {
    location.hash = '#/c/here/vms?create=true';
  });
  const dialog = page.getByRole('dialog');
  await dialog.locator('input[name=name]').fill('browser-made');
  await dialog.getByRole('button', { name: 'Next' }).click();
  await dialog.getByLabel('New and empty').check();
  await dialog.getByRole('button', { name: 'Next' }).click();
  await dialog.getByLabel('A kernel of its own').check();
  const files = dialog.locator('input[type=file]');
  await files.nth(0).setInputFiles(guest('vmlinuz'));
  await files.nth(1).setInputFiles(guest('initrd.img'));
  await dialog.getByRole('button', { name: /Create/ }).click();

  await expect(page.locator('[data-chart=cpu]')).toBeVisible({ timeout: 60_000 });
  await expect(page.getByText('Running').first()).toBeVisible({ timeout: 90_000 });
  // Its own numbers arrive: the verifier in it writes.
  const iops = page.locator('[data-chart=iops] [data-live]').first();
  await expect(iops).toHaveText(/[1-9]/, { timeout: 60_000 });

  await page.getByRole('button', { name: 'Actions for browser-made' }).click();
  await page.getByRole('menuitem', { name: 'Stop at once' }).click();
  await dialog.getByRole('button', { name: 'Stop at once' }).click();
  await expect(page.getByText('Stopped').first()).toBeVisible({ timeout: 60_000 });

  await page.getByRole('button', { name: 'Actions for browser-made' }).click();
  await page.getByRole('menuitem', { name: 'Delete' }).click();
  await dialog.getByRole('textbox').fill('browser-made');
  await dialog.getByRole('button', { name: 'Delete' }).click();
  await page.evaluate(() => {
    location.hash = '#/c/here/vms';
  });
  await expect(page.locator('[data-vm]')).toHaveCount(0, { timeout: 30_000 });
});
