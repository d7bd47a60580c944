// What axe finds on the main screens, in both schemes: contrast, names, roles.
import { expect, test } from '@playwright/test';
import type { Page } from '@playwright/test';
import { choose, clean, cluster, logIn } from './cluster';

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
