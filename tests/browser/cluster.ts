// The cluster under test, and how a person gets into it.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { AxeResults } from 'axe-core';
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

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Fails with each finding's rule, its help and the elements it is about. */
export async function clean(page: Page, screen: string): Promise<void> {
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
