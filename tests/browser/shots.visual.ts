// Pictures of every screen in both schemes and two sizes, for a person to judge.
// It asserts only that the screens come up and that nothing overflows sideways.
import { expect, test } from '@playwright/test';
import type { Page } from '@playwright/test';
import { choose, cluster, logIn } from './cluster';

const sizes = { wide: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } };

async function shoot(page: Page, name: string): Promise<void> {
  // Charts draw on the next frame, numbers come within a second.
  await page.waitForTimeout(1300);
  const overflow = await page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  expect(overflow, `${name} overflows sideways`).toBeLessThanOrEqual(0);
  await page.screenshot({ path: `results/shots/${name}.png` });
}

async function go(page: Page, path: string): Promise<void> {
  await page.evaluate((to) => {
    location.hash = to;
  }, path);
}

for (const scheme of ['light', 'dark'] as const) {
  for (const [size, viewport] of Object.entries(sizes)) {
    const language = scheme === 'dark' && size === 'phone' ? 'de' : 'en';
    test(`${scheme} ${size} ${language}`, async ({ page }) => {
      await page.setViewportSize(viewport);
      await choose(page, language, scheme);
      const name = (screen: string) => `${scheme}-${size}-${screen}`;
      await page.goto(cluster.url());
      await page.locator('input[name=user]').waitFor();
      await shoot(page, name('login'));
      await page.locator('input[name=user]').fill('nobody');
      await page.locator('input[name=password]').fill('wrong password');
      await page.locator('button[type=submit]').click();
      await expect(page.getByRole('alert')).toBeVisible();
      await shoot(page, name('login-refused'));

      await logIn(page);
      await expect(page.locator('[data-node]').first()).toBeVisible();
      await shoot(page, name('overview'));
      await page.locator('[data-node]').first().evaluate((e) => e.scrollIntoView());
      await go(page, '#/c/here/vms');
      await page.getByRole('table').or(page.locator('strong')).first().waitFor();
      await shoot(page, name('vms'));
      await go(page, '#/c/here/vms?create=true');
      await page.getByRole('dialog').waitFor();
      await shoot(page, name('vm-create'));
      await page.keyboard.press('Escape');
      const row = page.locator('[data-vm]').first();
      if ((await row.count()) > 0) {
        await row.click();
        await page.locator('[data-chart=latency]').waitFor();
        await shoot(page, name('vm'));
      }
      for (const tab of ['', '?tab=volumes', '?tab=images']) {
        await go(page, `#/c/here/storage${tab}`);
        await shoot(page, name(`storage${tab.replace('?tab=', '-')}`));
      }
      await go(page, '#/c/here/storage?tab=volumes');
      const volume = page.locator('td a').first();
      if ((await volume.count()) > 0) {
        await volume.click();
        await page.locator('[data-state=active]').first().waitFor();
        await shoot(page, name('volume'));
      }
      await go(page, '#/c/here/activity');
      await shoot(page, name('activity'));
    });
  }
}
