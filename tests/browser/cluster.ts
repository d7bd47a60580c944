// The cluster under test, and how a person gets into it.
import { expect } from '@playwright/test';
import type { Page } from '@playwright/test';

function need(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === '') {
    throw new Error(`${name} is not set: these tests run against a cluster (docs/TESTING.md)`);
  }
  return value;
}

export const cluster = {
  /** Of a node's page, such as https://127.0.1.1:8443. */
  url: () => need('DRYSTONE_URL'),
  user: () => need('DRYSTONE_USER'),
  password: () => need('DRYSTONE_PASSWORD'),
};

/** Opens the page and logs in as a person does. */
export async function logIn(page: Page): Promise<void> {
  await page.goto(cluster.url());
  await page.locator('input[name=user]').fill(cluster.user());
  await page.locator('input[name=password]').fill(cluster.password());
  await page.locator('button[type=submit]').click();
  await expect(page.locator('[data-link=open]')).toBeVisible();
}

/** Chooses language and scheme before the first page is loaded. */
export async function choose(
  page: Page,
  language: 'en' | 'de',
  scheme: 'light' | 'dark',
): Promise<void> {
  await page.addInitScript(
    ([l, s]) => {
      localStorage.setItem('drystone.language', l);
      localStorage.setItem('mantine-color-scheme-value', s);
    },
    [language, scheme] as const,
  );
}
