// What axe finds on the main screens, in both schemes: contrast, names, roles.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { AxeResults } from 'axe-core';
import { expect, test } from '@playwright/test';
import type { Page } from '@playwright/test';
import { choose, cluster, logIn } from './cluster';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Fails with each finding's rule, its help and the elements it is about. */
async function clean(page: Page, screen: string): Promise<void> {
  // Evaluated, not added as a script: the page's content policy forbids that, rightly.
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const { axe } = window as unknown as { axe: { run: (o: object) => Promise<AxeResults> } };
    const { violations } = await axe.run({ resultTypes: ['violations'] });
    return violations.map(
      (v) => `${v.id}: ${v.help}\n  ${v.nodes.map((n) => n.html.slice(0, 160)).join('\n  ')}`,
    );
  });
  expect.soft(found, screen).toEqual([]);
}

async function go(page: Page, path: string): Promise<void> {
  await page.evaluate((to) => {
    location.hash = to;
  }, path);
}

for (const scheme of ['light', 'dark'] as const) {
  test(`axe finds nothing in ${scheme}`, async ({ page }) => {
    await page.emulateMedia({ reducedMotion: 'reduce' });
    await choose(page, 'en', scheme);
    await page.goto(cluster.url());
    await page.locator('input[name=user]').fill('nobody');
    await page.locator('input[name=password]').fill('wrong password');
    await page.locator('button[type=submit]').click();
    await expect(page.getByRole('alert')).toBeVisible();
    await clean(page, 'log-in, refused');

    await logIn(page);
    await expect(page.locator('[data-node]')).toHaveCount(3);
    await expect(page.locator('[data-disk]').first()).toBeVisible();
    await clean(page, 'overview');

    await go(page, '#/c/here/vms');
    await expect(page.getByRole('heading', { level: 1, name: 'Machines' })).toBeVisible();
    await clean(page, 'machines');
    await go(page, '#/c/here/vms?create=true');
    await expect(page.getByRole('dialog').locator('input[name=name]')).toBeVisible();
    await page.getByRole('dialog').locator('input[name=name]').fill('not a name');
    await clean(page, 'machines, wizard with a mistake');
    await page.keyboard.press('Escape');
    await expect(page.getByRole('dialog')).toHaveCount(0);

    for (const tab of ['pool', 'volumes', 'images']) {
      await go(page, `#/c/here/storage?tab=${tab}`);
      await expect(page.getByRole('tab', { selected: true })).toHaveText(new RegExp(tab, 'i'));
      await clean(page, `storage, ${tab}`);
    }
    await go(page, '#/c/here/activity');
    await expect(page.getByRole('switch')).toBeVisible();
    await clean(page, 'activity');
  });
}
